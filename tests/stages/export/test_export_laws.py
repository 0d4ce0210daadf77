"""The laws that every export form obeys."""

import errno
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.small_nets import convert, images, small

from kdna_convert.core import tensorfile
from kdna_convert.core.errors import FolderError
from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Totals
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.export import EXPORTS

every_form = pytest.mark.parametrize("name", EXPORTS)
LIBRARIES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


@pytest.fixture
def made(name: str) -> Conversion:
    for library in LIBRARIES.get(name, ()):
        pytest.importorskip(library)
    net = small()
    plan = Plan(ModelRef("small"), (convert(net),), (), Totals(1, 1, 1), Totals(1, 1, 1))
    return Conversion(net.eval(), plan, DataConfig(input_size=(3, 12, 12)), "scheme: cp\n")


@every_form
def test_a_form_tells_what_it_wrote(name: str, made: Conversion, tmp_path: Path) -> None:
    target = tmp_path / "deep" / f"net{EXPORTS[name].suffix}"
    exported = EXPORTS[name].write(made, target)
    assert (exported.file, exported.bytes) == (str(target), target.stat().st_size)
    assert exported.note
    assert {"file", "bytes"} <= asdict(exported).keys()  # type: ignore[call-overload]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@every_form
def test_the_conversion_does_not_change(name: str, made: Conversion, tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in made.model.state_dict().items()}
    with torch.no_grad():
        before = made.model(images())
        EXPORTS[name].write(made, tmp_path / "net")
        assert torch.equal(made.model(images()), before)
    assert all(torch.equal(tensor, made.model.state_dict()[key]) for key, tensor in state.items())


@every_form
def test_a_file_is_replaced_by_force_only_and_a_folder_never(name: str, made: Conversion, tmp_path: Path) -> None:
    (tmp_path / "net").write_text("mine")
    with pytest.raises(FolderError, match="KD601"):
        EXPORTS[name].write(made, tmp_path / "net")
    assert (tmp_path / "net").read_text() == "mine"
    with pytest.raises(FolderError, match="KD601"):
        EXPORTS[name].write(made, tmp_path, force=True)
    assert EXPORTS[name].write(made, tmp_path / "net", force=True).bytes == (tmp_path / "net").stat().st_size


@every_form
def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new(
    name: str, made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").write_bytes(b"old")

    def full_save(tensors: object, path: str, *_: object) -> None:
        os.truncate(path, 7)
        raise SafetensorError("No space left on device (os error 28)")

    def full_write(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensorfile, "save_file", full_save)
    monkeypatch.setattr(Path, "write_bytes", full_write)
    with pytest.raises(FolderError, match=r"KD604: .*No space left on device"):
        EXPORTS[name].write(made, tmp_path / "net", force=True)
    assert (tmp_path / "net").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
