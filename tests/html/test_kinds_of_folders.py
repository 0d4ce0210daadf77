"""Every kind of folder has a page: schemes, routings, codecs, fine-tunes, tasks, and folders with pieces missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import task_nets, tiny
from support.pages import Reader
from support.places import TESTS
from torch import nn

import kdna_convert as kdna
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.network.folder.report import Report

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(48)
CALIBRATION = "fit: {sweeps: 3}\ncalibration: {images: 32, heldout: 16, batch: 16}\n"
ALWAYS = ("What came out", "The layers", "Where accuracy went", "How it was made")


def converted(scheme: str, net: nn.Module, extra: str = "", **options: Any) -> kdna.Conversion:
    recipe = parse_recipe(f"scheme: {scheme}\n{CALIBRATION}{extra}")
    target = {} if scheme == "dense" else {"target_params": 0.6}
    return kdna.convert(net, recipe=recipe, data=IMAGES, **target, **options)


def saved(kind: str, place: Path) -> tuple[Path, nn.Module]:
    """A folder of this kind, and its original."""
    net = task_nets.net(kind) if kind in task_nets.NETS else tiny.net()
    if kind == "routed":
        conversion = converted("dense", net, "routing: se\n")
    elif kind in ("int8", "entropy"):
        how: dict[str, Any] = {"data": IMAGES, "target_bytes": 0.2} if kind == "entropy" else {}
        conversion = kdna.code(converted("cp", net), codec=kind, model=net, **how)
    elif kind == "fine-tuned":
        conversion = kdna.finetune(converted("cp", net), data=IMAGES, model=net, steps=12, batch_size=16)
    elif kind == "shrunk":
        conversion = kdna.shrink(converted("basis", net, "nested: true\n"), data=IMAGES, model=net, target_params=0.55)
    elif kind in task_nets.NETS:
        conversion = converted("cp", net, task={"sequence": "sequence", "binary": "binary"}.get(kind))
    else:
        conversion = converted(kind, net, "repair: [refit]\n")
    return kdna.save(conversion, place), net


@pytest.mark.parametrize(
    "kind", ["cp", "codebook", "basis", "dense", "routed", "int8", "entropy", "fine-tuned", "shrunk", *task_nets.NETS]
)
def test_a_folder_of_each_kind_has_a_page(kind: str, tmp_path: Path) -> None:
    folder, net = saved(kind, tmp_path / "net")
    reader = Reader(kdna.report(folder, model=net).html)
    headings = [heading for heading in ALWAYS if heading not in reader.text]
    assert headings == []
    assert ("Fine-tune" in reader.text) == (kind == "fine-tuned")
    assert "nan" not in reader.text.lower().split()


def test_a_folder_with_pieces_missing_has_a_page_without_them(tmp_path: Path) -> None:
    conversion = converted("cp", tiny.net(), "repair: [refit]\n")
    for part in ("stages", "families", "repair", "curve", "divergence", "seconds"):
        absent = replace(conversion, report=replace(conversion.report, **{part: getattr(Report(), part)}))
        page = kdna.report(kdna.save(absent, tmp_path / part)).html
        assert "How it was made" in page
        assert "nan" not in page.lower().split()


def test_a_page_of_a_strangers_folder_runs_none_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    conversion = converted("cp", tiny.net())
    named = replace(conversion.plan.model, name=f"{tmp_path / 'nets.py'}:net")
    folder = kdna.save(replace(conversion, plan=replace(conversion.plan, model=named)), tmp_path / "net")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user"))
    assert "The layers" in kdna.report(folder).html
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("folder", sorted((TESTS / "folders").iterdir()), ids=lambda folder: folder.name)
def test_a_folder_of_an_earlier_version_has_a_page(folder: Path) -> None:
    text = Reader(kdna.report(folder).html).text
    assert all(heading in text for heading in ALWAYS)
