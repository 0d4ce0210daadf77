"""Text files are written whole or not at all. Folders: tests/network/folder."""

from pathlib import Path

import pytest

from kdna_convert.core.atomic import require_writable, write_bytes, write_text
from kdna_convert.core.errors import FolderError


def test_a_text_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    for text in ("one\n", "two: é\n"):
        write_text(target, text)
        assert target.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, **options: object) -> None:
        path.write_bytes(text.encode()[:1])
        raise OSError(28, "No space left on device")

    target = tmp_path / "plan.json"
    write_text(target, "whole")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FolderError, match=r"KD604: .*plan\.json could not be written: No space left"):
        write_text(target, "another")
    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "plan.json", "{}")
    write_bytes(tmp_path / "new" / "net.onnx", b"graph")
    assert (tmp_path / "new" / "deep" / "plan.json").read_text() == "{}"
    assert (tmp_path / "new" / "net.onnx").read_bytes() == b"graph"


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "plan.json", tmp_path / "file" / "deep" / "plan.json"):
        for write in (require_writable, lambda path: write_text(path, "{}")):
            with pytest.raises(FolderError, match=r"KD604: .*plan\.json could not be written"):
                write(place)
    require_writable(tmp_path / "new" / "deep" / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
