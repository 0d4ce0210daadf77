"""`kdna run` with a target latency and the limits of a board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command import FEW_IMAGES, NET, kdna
from torch import nn

import kdna_convert
from kdna_convert import Conversion
from kdna_convert.api.request import request_of
from kdna_convert.core.errors import FolderError, KdnaError
from kdna_convert.inputs.recipe import Recipe, parse_recipe

TEXT = "scheme: cp\nbudget: {params: 0.6}\ncalibration: {images: 30, heldout: 20}\nseed: 3\n"
RECIPE = parse_recipe(TEXT)
CODED = parse_recipe(f"{TEXT}codec: int8\n")
DENSE = parse_recipe("scheme: dense\ncodec: entropy\ncalibration: {images: 30, heldout: 20}\n")
BOARD = {"board": "nucleo-l4r5zi", "max_latency": 0.7}


def job(images: Path, output: Path, recipe: Recipe = RECIPE, **given: Any) -> Conversion:
    return kdna_convert.run(NET, recipe=recipe, data=images, output=output, **given)


def mark(images: Path, recipe: Recipe = RECIPE, **options: Any) -> str:
    return request_of(NET, recipe, images, (None, None), options, None).mark


@pytest.fixture(scope="module")
def limited(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coded net within the limits of a board. Not to be changed."""
    output = tmp_path_factory.mktemp("limits") / "net"
    job(images, output, CODED, **BOARD)
    return output


def test_a_run_keeps_the_limits_of_a_board_and_the_codec_the_size_of_the_file(images: Path, limited: Path) -> None:
    plan = kdna_convert.open_folder(limited, trust_code=True).plan
    alone = kdna_convert.plan(NET, recipe=RECIPE, data=images, **BOARD)
    assert plan.board is not None
    assert plan.board == alone.board
    assert plan.families == alone.families
    latency = plan.board.limits[1]
    assert latency.allowed is not None
    assert latency.used <= latency.allowed
    assert plan.planned.bytes == (limited / "model.safetensors").stat().st_size < alone.planned.bytes


def test_other_limits_are_another_run(images: Path, limited: Path) -> None:
    assert job(images, limited, CODED, **BOARD).report.run.was_there
    for other in ({}, {**BOARD, "max_latency": 0.8}, {**BOARD, "arithmetic": "int8", "max_flash": "1MB"}):
        with pytest.raises(FolderError, match="KD601"):
            job(images, limited, CODED, **other)


def test_a_mark_depends_on_every_limit_and_on_nothing_that_limits_nothing(images: Path) -> None:
    plain = mark(images)
    nothing = {"runtime": "torch", "threads": 1, "profile": None, "other_machine": False, "target_latency": None}
    assert mark(images, **nothing, board=None, arithmetic="int8", max_flash=None) == plain
    limits: list[dict[str, Any]] = [
        {"target_latency": 0.7, "runtime": "torch", "threads": 1},
        {"target_latency": 0.8, "runtime": "torch", "threads": 1},
        {"target_latency": 0.7, "runtime": "torch", "threads": 2},
        {"board": "nucleo-l4r5zi"},
        {"board": "nucleo-u575zi-q"},
        {"max_flash": "5kB"},
        {"max_flash": "5kB", "arithmetic": "fp32"},
        {"max_peak_memory": 5000},
    ]
    assert len({plain, *(mark(images, **each) for each in limits)}) == 1 + len(limits)
    assert mark(images, max_flash=5000) == mark(images, max_flash="5kB")


def test_a_folder_of_a_run_without_limits_has_the_mark_that_it_had_before_there_were_any(images: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    for weight in net.parameters():
        nn.init.constant_(weight, 0.5)
    one = request_of(net, RECIPE, None, (0.5, None), {"inputs": {"input_size": (3, 3, 3)}}, None)
    assert one.mark == "472a069d6390e3f6171a21db151424140a1702ff1e3b1ffd1c72f5f9070c5e71"


def test_a_run_for_a_latency_is_timed(images: Path, tmp_path: Path) -> None:
    options = {"target_latency": 1.0, "runtime": "torch", "threads": 1, "profile": tmp_path / "times.jsonl"}
    done = job(images, tmp_path / "net", CODED, **options)
    assert done.report.latency is not None
    assert done.plan.planned.latency is not None
    assert done.plan.original.latency is not None
    assert done.plan.planned.latency <= done.plan.original.latency
    assert job(images, tmp_path / "net", CODED, **options).report.run.was_there


@pytest.mark.parametrize(
    ("recipe", "given", "code", "message"),
    [
        (DENSE, {"max_flash": "5kB"}, "KD506", "converts no layer; its codec, entropy, decides the size of the file"),
        (DENSE, {"target_latency": 0.7, "runtime": "torch"}, "KD506", "converts no layer"),
        (parse_recipe("scheme: dense\n"), BOARD, "KD506", "converts no layer: use a recipe with a scheme"),
        (RECIPE, {"target_params": 0.5, "target_latency": 0.7}, "KD506", "give one budget, not 2"),
        (RECIPE, {"target_params": 0.5, "target_bytes": "1/2"}, "KD506", "give one budget, not 2"),
        (RECIPE, {"max_latency": "5ms"}, "KD506", "needs a board"),
        (RECIPE, {"board": "nucleo"}, "KD511", "no bundled board"),
        (RECIPE, {"target_latency": 0.7, "runtime": "abacus"}, "KD302", "there is no runtime"),
        (RECIPE, {"target_latency": "soon"}, "KD506", "is not a latency"),
        (parse_recipe(f"{TEXT}routing: se\n"), BOARD, "KD203", "has a routing"),
    ],
)
def test_what_cannot_go_together_is_refused_before_the_work(
    recipe: Recipe, given: dict[str, Any], code: str, message: str, images: Path, tmp_path: Path
) -> None:
    if recipe is DENSE:
        given = {**given, "target_bytes": "1/4"}
    with pytest.raises(KdnaError, match=message) as refused:
        job(images, tmp_path / "net", recipe, **given)
    assert refused.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_limits_and_shows_what_the_result_takes_of_each(images: Path, tmp_path: Path) -> None:
    limits = ("--board", "nucleo-l4r5zi", "--max-latency", "0.7", "--max-flash", "5kB")
    set_keys = (*FEW_IMAGES, "--set", "repair=[]")
    done = kdna("run", "shared-cp", NET, "--data", images, *set_keys, *limits, "-o", tmp_path / "net")
    assert done.exit_code == 0, done.stderr
    assert "on nucleo-l4r5zi in int8, for one image:" in done.stdout
    assert done.stdout.count(", estimate") == 3
