"""The laws that every export form obeys."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support.exports import small_conversion, timm_conversion
from support.small_nets import images
from torch import Tensor

from kdna_convert.core import tensorfile
from kdna_convert.core.errors import FolderError, ModelError
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.export import EXPORTS, Export, ExportOptions, write_export

# The others need images, or seconds to convert. Their own tests hold what differs.
QUICK = [name for name in EXPORTS if name in ("merged", "timm", "onnx", "onnx-compact", "pt2")]
every_form = pytest.mark.parametrize("name", QUICK)


@pytest.fixture
def made(name: str) -> Conversion:
    for library in EXPORTS[name].needs:
        pytest.importorskip(library)
    return timm_conversion() if name == "timm" else small_conversion()


@pytest.fixture
def form(name: str) -> Export:
    return EXPORTS[name]


def record_of(form: Export, target: Path) -> dict[str, Any]:
    path = target / "export.json" if form.folder else target.with_name(f"{target.name}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@every_form
def test_an_export_is_what_the_result_and_its_record_say(form: Export, made: Conversion, tmp_path: Path) -> None:
    target = tmp_path / "deep" / f"net{form.suffix}"
    exported = write_export(form, made, target, images=images())
    files = [each for each in target.rglob("*") if each.is_file()] if form.folder else [target]
    files = [each for each in files if each.name != "export.json"]
    assert (exported.form, exported.file) == (form.name, str(target))
    assert exported.bytes == sum(each.stat().st_size for each in files)
    assert exported.note
    assert exported.difference is not None
    assert exported.difference <= form.tolerance(ExportOptions())
    assert exported.checked == f"{'' if form.calibrated else 'noise and '}{len(images())} images"
    record = record_of(form, target)
    assert record.items() >= json.loads(json.dumps(asdict(exported))).items()
    assert sum(each["bytes"] for each in record["files"].values()) == exported.bytes
    assert record["input"]["input_size"] == [3, 12, 12]
    beside = {target.name} if form.folder else {target.name, f"{target.name}.json"}
    assert {path.name for path in target.parent.iterdir()} == beside


@every_form
def test_the_conversion_does_not_change(form: Export, made: Conversion, tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in made.model.state_dict().items()}
    with torch.no_grad():
        before = made.model(images())
        write_export(form, made, tmp_path / "net")
        assert torch.equal(made.model(images()), before)
    assert all(torch.equal(tensor, made.model.state_dict()[key]) for key, tensor in state.items())


@every_form
def test_an_export_is_replaced_by_force_only(form: Export, made: Conversion, tmp_path: Path) -> None:
    target = tmp_path / "net"
    exported = write_export(form, made, target)
    before = record_of(form, target)
    with pytest.raises(FolderError, match=r"KD601: .*--force"):
        write_export(form, made, target)
    assert record_of(form, target) == before
    assert write_export(form, made, target, force=True).bytes == exported.bytes


@every_form
def test_what_no_export_wrote_is_never_replaced(form: Export, made: Conversion, tmp_path: Path) -> None:
    mine = tmp_path / "net" / "mine"
    mine.parent.mkdir()
    mine.write_text("mine")
    for force in (False, True):
        with pytest.raises(FolderError, match="KD601"):
            write_export(form, made, mine.parent, force=force)
    if form.folder:
        with pytest.raises(FolderError, match="KD601"):
            write_export(form, made, mine, force=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["net", "mine"]
    assert mine.read_text() == "mine"


@every_form
def test_an_export_with_other_outputs_is_not_written(
    form: Export, made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., dict[str, Tensor]] = form.run
    halved = {"run": lambda _, *args: {name: each / 2 for name, each in run(*args).items()}}
    other = type(form)()
    monkeypatch.setattr(type(form), "run", halved["run"])
    with pytest.raises(ModelError, match=r"KD312: .*differ from torch's by .*nothing was written"):
        write_export(other, made, tmp_path / "net")
    assert not [*tmp_path.iterdir()]


@every_form
def test_options_that_a_form_does_not_take_are_refused_before_the_work(
    form: Export, made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(form), "write", lambda *_: pytest.fail("the work began"))
    changed: dict[str, Any] = {"opset": 18, "dynamic": ("batch", "width"), "fp16": True, "normalize": True}
    for option in changed.keys() - form.takes:
        with pytest.raises(ModelError, match=f"KD315: {form.name} does not take --{option}"):
            write_export(form, made, tmp_path / "net", ExportOptions(**{option: changed[option]}))
    if "dynamic" in form.takes:
        with pytest.raises(ModelError, match="KD315: --dynamic depth"):
            write_export(form, made, tmp_path / "net", ExportOptions(dynamic=("depth",)))
    assert not [*tmp_path.iterdir()]


@every_form
def test_a_missing_library_is_named_with_its_extra(
    form: Export, made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(form), "needs", ("no_such_library",))
    with pytest.raises(ModelError, match=r"KD312: no_such_library not installed: pip install 'kdna-convert\["):
        write_export(form, made, tmp_path / "net")


@every_form
@pytest.mark.parametrize("option", ["normalize", "fp16", "dynamic"])
def test_an_option_that_a_form_takes_holds(option: str, form: Export, made: Conversion, tmp_path: Path) -> None:
    if option not in form.takes:
        pytest.skip(f"{form.name} does not take it")
    values: dict[str, Any] = {"normalize": True, "fp16": True, "dynamic": ("batch", "height", "width")}
    exported = write_export(form, made, tmp_path / "net", ExportOptions(**{option: values[option]}), images())
    assert exported.difference is not None
    assert record_of(form, tmp_path / "net")["options"][option] == json.loads(json.dumps(values[option]))


@every_form
def test_a_full_disk_leaves_the_old_export_and_no_half_of_the_new(
    form: Export, made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "net"
    write_export(form, made, target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full_save(tensors: object, path: str, *_: object) -> None:
        os.truncate(path, 7)
        raise SafetensorError("No space left on device (os error 28)")

    def full_write(path: Path, data: object, **_: object) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensorfile, "save_file", full_save)
    for writes in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, writes, full_write)
    with pytest.raises(FolderError, match=r"KD604: .*No space left on device"):
        write_export(form, made, target, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
