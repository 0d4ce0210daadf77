"""`verify` fails what contradicts its computations, measures again what images show, and lists the rest as claims."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import kdna
from support.folder_fuzz import reseal
from support.places import ROOT, TESTS

import kdna_convert
from kdna_convert.network.folder import Check
from kdna_convert.network.folder.save import STANDALONE_LOADER

KINDS = sorted(path.name for path in (TESTS / "folders").iterdir())


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folders name their nets relative to the repository."""
    monkeypatch.chdir(ROOT)


def copied(kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(TESTS / "folders" / kind, tmp_path / kind))


def checks(folder: Path, **options: Any) -> dict[str, Check]:
    return {check.name: check for check in kdna_convert.verify(folder, trust_code=True, **options)}


def failing(folder: Path, **options: Any) -> list[str]:
    return [name for name, check in checks(folder, **options).items() if not check.ok]


def claimed(folder: Path) -> list[str]:
    return [name for name, check in checks(folder).items() if not check.checked]


def altered(kind: str, tmp_path: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A copy with one of its JSON files changed, and sums that agree."""
    folder = copied(kind, tmp_path)
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    reseal(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_folder_passes_and_the_rest_is_listed(kind: str) -> None:
    found = checks(TESTS / "folders" / kind)
    assert [name for name, check in found.items() if not check.ok] == []
    assert {"layers", "original size", "stored", "MACs", "totals", "folded"} <= {
        name for name, check in found.items() if check.checked or name == "folded"
    }
    unchecked = [check for check in found.values() if not check.checked]
    assert {"figures", "history"} <= {check.name for check in unchecked}
    assert all(check.detail.startswith("not checked: ") for check in unchecked)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda plan: plan["original"].update(params=5670), "original size"),
        (lambda plan: plan["original"].update(bytes=25325), "original size"),
        (lambda plan: plan["original"].update(macs=352573), "original size"),
        (lambda plan: plan["planned"].update(macs=1), "MACs"),
        (lambda plan: plan["planned"].update(params=1), "totals"),
        (lambda plan: plan["planned"].update(bytes=1), "totals"),
        (lambda plan: plan["stored"].update({"blocks.0.conv1": 1}), "stored"),
        (lambda plan: plan.update(routed=1), "stored"),
        (lambda plan: plan["layers"][0].update(shape=[12, 3, 5, 5]), "layers"),
        (lambda plan: plan["layers"][0].update(kind="Linear"), "layers"),
        (lambda plan: plan["layers"][0].update(in_positions=1), "layers"),
        (lambda plan: plan["layers"].append({"name": "more", "kind": "Conv2d", "shape": [1, 1]}), "layers"),
        (lambda plan: plan["layers"].pop(0), "layers"),
    ],
)
def test_what_the_plan_says_of_sizes_is_computed_again(
    tmp_path: Path, change: Callable[[Any], object], check: str
) -> None:
    assert check in failing(altered("shared", tmp_path, "plan.json", change))


def test_what_config_json_says_to_timm_is_computed_again(tmp_path: Path) -> None:
    folder = altered("shared", tmp_path, "config.json", lambda config: config["pretrained_cfg"].update(mean=[0, 0, 0]))
    assert failing(folder) == ["header"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plan.json", lambda plan: plan.update(predicted={"blocks.0.conv1": 0.0})),
        ("plan.json", lambda plan: plan.update(seed=7)),
        ("report.json", lambda report: report["divergence"].update(agreement=0.123)),
    ],
)
def test_what_no_computation_shows_is_named_as_a_claim(
    tmp_path: Path, name: str, change: Callable[[Any], object]
) -> None:
    folder = altered("shared", tmp_path, name, change)
    assert failing(folder) == []
    assert {"figures", "history"} <= {*claimed(folder)}


def test_the_loader_of_another_hand_is_named(tmp_path: Path) -> None:
    folder = copied("shared", tmp_path)
    assert checks(folder)["loader.py"].detail.endswith("the loader of kdna 0.1.0")
    (folder / "loader.py").write_bytes(STANDALONE_LOADER.read_bytes())
    reseal(folder)
    assert checks(folder)["loader.py"].detail.endswith("the loader of this kdna")
    (folder / "loader.py").write_text("print('mine')\n")
    reseal(folder)
    assert "loader.py" in claimed(folder)


def test_other_files_are_named(tmp_path: Path) -> None:
    folder = copied("shared", tmp_path)
    assert "other files" not in checks(folder)
    (folder / "sitecustomize.py").write_text("")
    assert checks(folder)["other files"].detail == "not checked: not of the folder: sitecustomize.py"


def test_a_model_card_that_kdna_did_not_write_is_named(tmp_path: Path) -> None:
    conversion = kdna_convert.open_folder(TESTS / "folders" / "shared", trust_code=True)
    folder = kdna_convert.save(conversion, tmp_path / "again")
    assert checks(folder.rename(tmp_path / "moved"))["model card"].checked
    card = (tmp_path / "moved" / "README.md").read_text()
    (tmp_path / "moved" / "README.md").write_text(card.replace("5,669", "5,668"))
    reseal(tmp_path / "moved")
    assert "model card" in claimed(tmp_path / "moved")


def test_images_measure_the_figures_again(tmp_path: Path) -> None:
    honest = checks(TESTS / "folders" / "digits", data="kdna:digits/test", limit=100)["figures"]
    assert honest.ok
    assert honest.checked
    assert "report.json claims 100.0 % agreement" in honest.detail
    assert "on 100 images" in honest.detail
    lie = altered("digits", tmp_path, "report.json", lambda report: report["divergence"].update(kl=1e-9))
    noise = altered("digits", tmp_path / "noise", "report.json", lambda report: report["divergence"].update(images=1))
    assert failing(noise, data="kdna:digits/test", limit=100) == []
    assert failing(lie, data="kdna:digits/test", limit=100) == ["figures"]


@pytest.mark.parametrize(
    "figures",
    [{"agreement": 7.0}, {"agreement": -1.0}, {"images": 0}, {"images": -5}, {"kl": -1.0}, {"agreement": None}],
)
def test_figures_that_no_measurement_gives_are_refused(figures: dict[str, Any], tmp_path: Path) -> None:
    lie = altered("digits", tmp_path, "report.json", lambda report: report["divergence"].update(figures))
    assert failing(lie, data="kdna:digits/test", limit=20) == ["figures"]


def test_the_command_prints_claims_apart_from_checks(tmp_path: Path) -> None:
    done = kdna("verify", copied("shared", tmp_path), "--trust-code")
    assert done.exit_code == 0
    assert "claimed" in done.stdout
    assert done.stdout.rstrip().endswith("statements are not checked")
    rows = json.loads(kdna("verify", tmp_path / "shared", "--trust-code", "--json").stdout)
    assert {row["checked"] for row in rows} == {True, False}
