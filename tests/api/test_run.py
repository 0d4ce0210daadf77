"""`kdna run`: every stage of a recipe in one call that can be stopped and resumed anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command import FEW_IMAGES, NET, kdna
from support.fine_tuning import KilledError
from torch import Tensor

import kdna_convert
from kdna_convert import Conversion
from kdna_convert.api import run as running
from kdna_convert.api.run import MARK
from kdna_convert.core.errors import DataError, FolderError, PlanError, RecipeError
from kdna_convert.inputs.recipe import Recipe, parse_recipe
from kdna_convert.network.stored import stored_state

TEXT = """
scheme: basis
budget: {params: 0.6}
calibration: {images: 30, heldout: 20}
repair: [refit]
finetune: {train: shared, steps: 3, batch_size: 8, save_every: 1, augment: false}
codec: int8
"""
RECIPE = parse_recipe(TEXT)
STAGES = ("convert", "finetune", "code")


def job(images: Path, output: Path, recipe: Recipe = RECIPE, **given: Any) -> Conversion:
    return kdna_convert.run(NET, recipe=recipe, data=images, output=output, **given)


def tensors(folder: Path) -> dict[str, Tensor]:
    return stored_state(kdna_convert.load(folder))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were done, in order."""
    names: list[str] = []

    def counted(name: str, verb: Callable[..., Conversion]) -> Callable[..., Conversion]:
        def call(*arguments: Any, **keywords: Any) -> Conversion:
            names.append(name)
            return verb(*arguments, **keywords)

        return call

    for name in STAGES:
        monkeypatch.setattr(running, name, counted(name, getattr(running, name)))
    return names


@pytest.fixture(scope="module")
def done(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole job that nothing disturbed. Not to be changed."""
    output = tmp_path_factory.mktemp("run") / "net"
    job(images, output)
    return output


def killed_in(stage: str, monkeypatch: pytest.MonkeyPatch, images: Path, output: Path) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(running, stage, die)
        with pytest.raises(KilledError):
            job(images, output)


def test_a_run_gives_the_same_bytes_as_its_stages_one_by_one(images: Path, done: Path, tmp_path: Path) -> None:
    alone = RECIPE.model_copy(update={"codec": None, "finetune": None})
    assert RECIPE.finetune is not None
    converted = kdna_convert.convert(NET, recipe=alone, data=images)
    tuned = kdna_convert.finetune(converted, data=images, **vars(RECIPE.finetune.settings(RECIPE.seed)))
    kdna_convert.save(kdna_convert.code(tuned, codec="int8", data=images), tmp_path / "by-hand")
    for name in ("model.safetensors", "recipe.yaml", "plan.json"):
        assert (tmp_path / "by-hand" / name).read_bytes() == (done / name).read_bytes(), name


def test_a_recipe_that_only_converts_gives_what_convert_gives(images: Path, tmp_path: Path) -> None:
    recipe = parse_recipe("scheme: basis\nbudget: {params: 0.6}\ncalibration: {images: 30, heldout: 20}\ncodec: bf16\n")
    job(images, tmp_path / "run", recipe)
    kdna_convert.save(kdna_convert.convert(NET, recipe=recipe, data=images), tmp_path / "convert")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "convert" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_repeats_only_the_unfinished_stages(
    stage: str, images: Path, done: Path, tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in(stage, monkeypatch, images, tmp_path / "net")
    before = list(STAGES[: STAGES.index(stage)])
    assert called == before
    called.clear()
    conversion = job(images, tmp_path / "net")
    assert called == [name for name in STAGES if name not in before]
    rows = conversion.report.run.stages
    assert [(row.stage, row.done_before) for row in rows] == [(name, name in before) for name in STAGES]
    assert equal(tensors(tmp_path / "net"), tensors(done))
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_fine_tune_killed_half_way_resumes_to_the_bit(
    images: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def kill(what: str, at: int, total: int) -> None:
        if what.startswith("fine-tune"):
            steps.append(at)
            if at == 2 and len(steps) == 2:
                raise KilledError

    with pytest.raises(KilledError):
        job(images, tmp_path / "net", progress=kill)
    job(images, tmp_path / "net", progress=kill)
    assert steps == [1, 2, 2, 3]  # killed before step 2 was written down
    assert equal(tensors(tmp_path / "net"), tensors(done))


def test_a_run_killed_while_it_evaluates_only_evaluates_again(
    images: Path, tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(running, "evaluate", die)
        with pytest.raises(KilledError):
            job(images, tmp_path / "net", eval_data=images)
    called.clear()
    conversion = job(images, tmp_path / "net", eval_data=images)
    assert called == []
    assert all(row.top1 is not None for row in conversion.report.run.stages)
    assert conversion.report.run.evaluation.images == 60


def test_a_changed_recipe_starts_again(
    images: Path, tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in("code", monkeypatch, images, tmp_path / "net")
    called.clear()
    other = parse_recipe(TEXT.replace("steps: 3", "steps: 2"))
    conversion = job(images, tmp_path / "net", other)
    assert called == list(STAGES)
    assert conversion.report.finetune.steps == 2


@pytest.mark.parametrize("changed", [{"target_params": 0.7}, {"target_bytes": "1/2"}, {"inputs": {"crop_pct": 0.9}}])
def test_a_finished_folder_of_another_run_is_refused(changed: dict[str, Any], images: Path, done: Path) -> None:
    with pytest.raises(FolderError, match="KD601"):
        job(images, done, **changed)


def test_a_finished_run_is_read_and_not_repeated(images: Path, done: Path, called: list[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in done.iterdir()}
    conversion = job(images, done)
    assert called == []
    assert conversion.report.run.was_there
    assert {path.name: path.stat().st_mtime_ns for path in done.iterdir()} == before


def test_other_files_in_the_work_folder_stay(images: Path, tmp_path: Path) -> None:
    mine = tmp_path / "net.part" / "thesis" / "chapter.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("ten years")
    job(images, tmp_path / "net")
    assert [path for path in (tmp_path / "net.part").rglob("*") if path.is_file()] == [mine]


def test_a_run_that_cannot_begin_leaves_nothing(images: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="KD504"):
        job(images, tmp_path / "net", RECIPE.model_copy(update={"budget": None}))
    assert list(tmp_path.iterdir()) == []


def test_missing_inputs_are_refused_before_the_work(images: Path, tmp_path: Path, called: list[str]) -> None:
    output = tmp_path / "net"
    with pytest.raises(DataError, match="KD401: the recipe fine-tunes"):
        kdna_convert.run(NET, recipe=RECIPE, output=output)
    with pytest.raises(PlanError, match="KD504"):
        job(images, output, RECIPE.model_copy(update={"codec": "entropy"}))
    with pytest.raises(DataError, match="KD401"):
        job(images, output, eval_data=tmp_path / "nowhere")
    assert called == []
    assert list(tmp_path.iterdir()) == []


# ---- a recipe that decides by the size whether to share

SHARING = parse_recipe(
    "scheme: dense\ncodec: int8\ncalibration: {images: 30, heldout: 20}\n"
    "sharing: {below: 0.5, scheme: basis, params: 0.6, finetune: {steps: 1, batch_size: 8}}\n"
)


@pytest.mark.parametrize(("target", "shares"), [("0.5", False), ("0.49", True), (None, False), ("5kB", None)])
def test_a_recipe_shares_kernels_below_its_size_and_then_trains(target: str | None, shares: bool | None) -> None:
    whole = 20_000
    decided = SHARING.at_size(target, whole)
    expected = 0.5 * whole > 5_000 if shares is None else shares
    assert (decided.scheme, decided.finetune is not None) == (("basis", True) if expected else ("dense", False))
    assert decided.sharing is None


def test_a_run_shares_only_below_the_recipes_size_and_reports_it(images: Path, tmp_path: Path) -> None:
    for target, stages, families in (("0.49", STAGES, 1), ("0.9", ("convert", "code"), 0)):
        conversion = job(images, tmp_path / target, SHARING, target_bytes=target)
        assert tuple(row.stage for row in conversion.report.run.stages) == stages
        assert conversion.report.run.shares == bool(families)
        assert bool(conversion.plan.families) == bool(families)


def test_norms_are_trained_after_the_coding_and_the_file_keeps_its_size(images: Path, tmp_path: Path) -> None:
    text = "scheme: dense\ncodec: entropy\ncalibration: {images: 30, heldout: 20}\n"
    recipe = parse_recipe(text + "finetune: {train: norms, steps: 2, batch_size: 8, lr: 0.1}\n")
    conversion = job(images, tmp_path / "net", recipe, target_bytes="1/4")
    assert tuple(row.stage for row in conversion.report.run.stages) == ("convert", "code", "finetune")
    coded, tuned = conversion.report.run.stages[1:]
    assert conversion.coded is not None
    assert tuned.bytes <= conversion.report.code.target
    assert (tmp_path / "net" / "model.safetensors").stat().st_size == tuned.bytes
    assert coded.params == tuned.params


def test_convert_ignores_the_sharing_rule_with_a_note(images: Path) -> None:
    conversion = kdna_convert.convert(NET, recipe=SHARING, data=images, target_bytes="0.49")
    assert not conversion.plan.families
    assert any("kdna run" in note for note in conversion.report.notes)
    assert not any(
        "kdna run" in note
        for note in kdna_convert.convert(NET, recipe=SHARING, data=images, target_bytes="0.9").report.notes
    )


def test_an_error_in_the_sharing_rule_names_its_line(images: Path, tmp_path: Path) -> None:
    wrong = "scheme: dense\ncodec: int8\nsharing:\n  below: 0.5\n  params: 0.6\n  options: {bread: 3}\n"
    with pytest.raises(RecipeError, match=r"KD202: recipe line 6: sharing\.options\.bread"):
        job(images, tmp_path / "net", parse_recipe(wrong))


# ---- the command

SET = (*FEW_IMAGES, "--set", "scheme=basis", "--set", "repair=[]")
TUNE = ("--set", "finetune={steps: 1, batch_size: 8}", "--set", "codec=int8")


def test_the_command_prints_a_row_per_stage_and_does_nothing_the_second_time(images: Path, tmp_path: Path) -> None:
    command = ("run", "balanced", NET, "--data", images, "--eval-data", images, *SET, *TUNE, "-o", tmp_path / "net")
    first = kdna(*command)
    assert first.exit_code == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].split() == ["stage", "parameters", "bytes", "agreement", "KL,", "nats", "top-1", "seconds"]
    assert [line.split()[0] for line in lines[1:5]] == ["original", *STAGES]
    assert max(map(len, lines)) <= 80
    assert json.loads((tmp_path / "net" / "report.json").read_text())["command"].startswith("kdna run balanced")
    assert kdna("verify", tmp_path / "net").exit_code == 0
    again = kdna(*command)
    assert again.exit_code == 0
    assert "is up to date" in again.stderr
    assert again.stdout.count("earlier run") == 3
    other = kdna(*command, "--target-params", "0.7")
    assert other.exit_code == 2
    assert "KD601" in other.stderr


def test_a_recipes_export_is_written_beside_the_folder_once(images: Path, tmp_path: Path) -> None:
    recipe = parse_recipe("{scheme: dense, export: merged}")
    first = job(images, tmp_path / "run", recipe)
    assert first.report.run is not None
    assert first.report.run.exported == str(tmp_path / "run-merged.safetensors")
    written = (tmp_path / "run-merged.safetensors").stat()
    again = job(images, tmp_path / "run", recipe)
    assert again.report.run is not None
    assert again.report.run.was_there
    assert again.report.run.exported == first.report.run.exported
    assert (tmp_path / "run-merged.safetensors").stat().st_mtime_ns == written.st_mtime_ns
    (tmp_path / "run-merged.safetensors").unlink()
    job(images, tmp_path / "run", recipe)
    assert (tmp_path / "run-merged.safetensors").exists()


def test_where_a_recipes_export_would_be_is_checked_before_the_work(
    images: Path, tmp_path: Path, called: list[str]
) -> None:
    (tmp_path / "run-merged.safetensors").write_text("mine")
    with pytest.raises(FolderError, match="KD601"):
        job(images, tmp_path / "run", parse_recipe("{scheme: dense, export: merged}"))
    with pytest.raises(DataError, match="KD405"):
        kdna_convert.run(NET, recipe=parse_recipe("{scheme: dense, export: fastest}"), output=tmp_path / "other")
    assert called == []
    assert (tmp_path / "run-merged.safetensors").read_text() == "mine"


def test_a_stopped_command_says_how_to_resume(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    command = ("run", "balanced", NET, "--data", images, *SET, *TUNE, "-o", tmp_path / "net")
    with monkeypatch.context() as patch:
        patch.setattr(running, "code", stop)
        stopped = kdna(*command)
    assert stopped.exit_code == 130
    assert "Run the same command again to resume" in stopped.stderr
    assert (tmp_path / "net.part" / MARK).exists()
    printed = json.loads(kdna(*command, "--json").stdout)
    assert [row["done_before"] for row in printed["run"]["stages"]] == [True, True, False]
