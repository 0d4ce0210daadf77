"""The fastest form: every candidate is timed and compared, and the best is kept alone."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.exports import difference, small_conversion
from support.small_nets import images
from torch import Tensor

from kdna_convert.api.export import export
from kdna_convert.core.errors import DataError, FolderError, ModelError
from kdna_convert.stages.export import ExportOptions
from kdna_convert.stages.export import fastest as module
from kdna_convert.stages.export.fastest import CANDIDATES, Fastest, FormTimes, write_fastest
from kdna_convert.stages.export.onnx import Session

pytest.importorskip("onnxruntime")
CLOCK = {"onnx": 4.0, "onnx-int8": 1.0, "openvino": 2.0, "openvino, bf16": 2.0, "openvino-int8": 0.5}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fastest:
    """A small net, with the two forms of onnxruntime only: the first is twice as fast as the second, and agrees."""
    monkeypatch.setattr(module, "CANDIDATES", CANDIDATES[:2])
    monkeypatch.setattr(module, "_times", lambda nets, source: {name: {"onnx": 1.0}.get(name, 2.0) for name in nets})
    return write_fastest(small_conversion(), tmp_path / "net", images(8), least=0.0)


def test_the_fastest_form_is_kept_alone_with_a_row_for_each(written: Fastest, tmp_path: Path) -> None:
    assert written.form == "onnx"
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"onnx", "export.json"}
    assert [(row.name, row.ms, row.ratio, row.why) for row in written.rows] == [
        ("onnx", 1.0, 1.0, None),
        ("onnx-int8", 2.0, 0.5, None),
    ]
    record = json.loads((tmp_path / "net" / "export.json").read_text())
    assert [FormTimes(**row) for row in record["rows"]] == [*written.rows]


def test_the_kept_file_returns_what_torch_does(written: Fastest, tmp_path: Path) -> None:
    given = Session(tmp_path / "net" / "onnx" / "net.onnx", "images")(images(3))["logits"]
    with torch.no_grad():
        assert difference(given, small_conversion().model(images(3))) < 1e-4


@pytest.mark.parametrize("name", ["onnx", "openvino, bf16"])
def test_the_line_of_python_loads_the_kept_file_as_it_was_timed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(module, "CANDIDATES", tuple(each for each in CANDIDATES if each.name in ("onnx", name)))
    monkeypatch.setattr(module, "_times", lambda nets, source: {each: 1.0 + (each != name) for each in nets})
    made = write_fastest(small_conversion(), tmp_path / "net", images(8), least=0.0)
    library = made.usage.partition(".")[0]
    loaded = eval(made.usage, {library: importlib.import_module(library)})
    if library == "openvino":
        assert loaded.get_property("INFERENCE_PRECISION_HINT").get_type_name() in made.usage
    else:
        assert [each.name for each in loaded.get_inputs()] == ["images"]


def test_a_form_that_disagrees_is_not_kept_however_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", CANDIDATES[:2])
    monkeypatch.setattr(module, "_times", lambda nets, source: {name: CLOCK[name] for name in nets})
    agreements = iter((1.0, 0.9))
    monkeypatch.setattr(module, "_agreement", lambda source, run: next(agreements))
    made = write_fastest(small_conversion(), tmp_path / "net", images(8))
    assert made.form == "onnx"
    assert made.rows[1].why == "agrees on less than 95%"


def test_a_form_that_is_not_installed_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(CANDIDATES[2], form=type("Absent", (type(CANDIDATES[2].form),), {"needs": ("no_such_library",)})())
    monkeypatch.setattr(module, "CANDIDATES", (CANDIDATES[0], other))
    made = write_fastest(small_conversion(), tmp_path / "net", images(4))
    assert made.rows[1].why == "no_such_library not installed: pip install 'kdna-convert[openvino]'"
    assert made.form == "onnx"


def test_a_net_without_classes_is_judged_by_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"relative_error": 0.0004, "held_out": 4.0}
    monkeypatch.setattr(module, "quality", lambda source, run: found)
    assert module._agreement(None, None) == pytest.approx(0.98)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [ExportOptions(fp16=True), ExportOptions(opset=17)])
def test_what_decides_the_arithmetic_is_refused(options: ExportOptions, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="KD315"):
        write_fastest(small_conversion(), tmp_path / "net", images(4), options)
    assert not [*tmp_path.iterdir()]


def test_only_the_fastest_form_takes_an_agreement(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="KD315: merged does not take --min-agreement"):
        export(small_conversion(), to="merged", output=tmp_path / "net", min_agreement=0.5)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("few", [images(1), images(0)])
def test_without_images_nothing_is_tried(few: Tensor, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="KD405"):
        write_fastest(small_conversion(), tmp_path / "net", few)
    assert not [*tmp_path.iterdir()]


def test_what_no_export_wrote_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("mine")
    with pytest.raises(FolderError, match="KD601"):
        write_fastest(small_conversion(), tmp_path / "net", images(4), force=True)
    assert (tmp_path / "net" / "mine").read_text() == "mine"


def test_times_are_of_runs_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    nets = {name: lambda image, name=name: order.append(name) or {} for name in ("a", "b")}
    source = type("Source", (), {"example": images(2)})()
    times = module._times(nets, source)  # type: ignore[arg-type]
    assert order[:6] == ["a", "b"] * 3
    assert set(times) == {"a", "b"}
