"""An update makes the new folder bit for bit, of the folder it was made from and no other."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import kdna_convert as kdna
from kdna_convert.core.errors import FolderError
from kdna_convert.network.folder import update as updates
from kdna_convert.network.folder.update import diff, patch

FOLDERS = Path(__file__).parents[2] / "folders"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The update from `digits` to `fine-tuned`."""
    file = tmp_path_factory.mktemp("made") / "new.update"
    diff(FOLDERS / "digits", FOLDERS / "fine-tuned", file)
    return file.read_bytes()


@pytest.fixture
def file(tuned: bytes, tmp_path: Path) -> Path:
    (tmp_path / "new.update").write_bytes(tuned)
    return tmp_path / "new.update"


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize(("base", "changed"), [("digits", "fine-tuned"), ("digits", "coded"), ("coded", "digits")])
def test_a_patched_folder_is_the_new_one_bit_for_bit(base: str, changed: str, tmp_path: Path) -> None:
    before = contents(FOLDERS / base)
    diff(FOLDERS / base, FOLDERS / changed, tmp_path / "new.update")
    patch(FOLDERS / base, tmp_path / "new.update", tmp_path / "new")
    assert contents(tmp_path / "new") == contents(FOLDERS / changed)
    assert contents(FOLDERS / base) == before


def test_equal_tensors_are_left_out_and_small_changes_are_short(tmp_path: Path) -> None:
    conversion = kdna.open_folder(FOLDERS / "digits")
    norm = next(module for module in conversion.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        norm.weight.mul_(1.001)
    kdna.save(conversion, tmp_path / "tuned")
    update = diff(FOLDERS / "digits", tmp_path / "tuned", tmp_path / "new.update")
    assert update.changed == 1
    stored = [name for name in load_file(tmp_path / "new.update") if name.startswith("tensor:")]
    assert len(stored) == 1
    assert update.bytes < 0.2 * update.whole
    with pytest.raises(FolderError, match="KD601"):
        diff(FOLDERS / "digits", tmp_path / "tuned", tmp_path / "new.update")


def test_an_update_of_another_folder_is_refused_and_nothing_written(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"KD613: .*made from another folder"):
        patch(FOLDERS / "coded", file, tmp_path / "new")
    with pytest.raises(FolderError, match="KD601"):
        patch(FOLDERS / "digits", file, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["new.update"]


def test_a_card_that_its_owner_edited_does_not_stop_an_update(file: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "digits", tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("my notes")
    patch(tmp_path / "mine", file, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(FOLDERS / "fine-tuned")


@pytest.mark.parametrize("part", range(0, 100, 7))
def test_a_damaged_update_is_refused_and_nothing_written(part: int, file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * part // 100] ^= 0x55
    file.write_bytes(data)
    with pytest.raises(FolderError, match="KD613"):
        patch(FOLDERS / "digits", file, tmp_path / "new")
    assert [each.name for each in tmp_path.iterdir()] == ["new.update"]


def test_an_update_that_swells_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_MOST", 0)
    with pytest.raises(FolderError, match="KD613"):
        patch(FOLDERS / "digits", file, tmp_path / "new")
    monkeypatch.setattr(updates, "TEXT_LIMIT", 100)
    with pytest.raises(FolderError, match="KD613"):
        patch(FOLDERS / "digits", file, tmp_path / "new")


def test_a_file_that_is_no_update_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("nothing")
    for name in ("other.safetensors", "text", "missing"):
        with pytest.raises(FolderError, match="KD613"):
            patch(FOLDERS / "digits", tmp_path / name, tmp_path / "new")
