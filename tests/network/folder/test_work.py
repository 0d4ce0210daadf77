"""The folder of a stopped run: only its own files are removed."""

from pathlib import Path

import pytest

from kdna_convert.network.folder.work import work_folder

FILES = ["state"]


def filled(target: Path, writes: bool = True, fails: bool = False) -> None:
    with work_folder(target, FILES, resume=False) as work:
        work.mkdir(exist_ok=True)
        if writes:
            (work / "state").write_text("half done")
        if fails:
            raise KeyboardInterrupt


def test_a_finished_run_leaves_no_work_folder(tmp_path: Path) -> None:
    filled(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_leaves_its_files_for_resume_only(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "net", fails=True)
    assert (tmp_path / "net.part" / "state").exists()
    with work_folder(tmp_path / "net", FILES, resume=True) as work:
        assert (work / "state").exists()
        (work / "state").write_text("more")
    with work_folder(tmp_path / "net", FILES, resume=False) as work:
        assert not work.exists()


def test_a_users_own_file_in_a_folder_of_that_name_stays(tmp_path: Path) -> None:
    mine = tmp_path / "net.part" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("ten years")
    filled(tmp_path / "net")
    assert mine.read_text() == "ten years"
    assert list(mine.parent.iterdir()) == [mine]


def test_half_written_files_are_removed_and_other_folders_stay(tmp_path: Path) -> None:
    target = tmp_path / "net"
    work = tmp_path / "net.part"
    for name in ("state", ".state.ab12", ".state.draft"):
        work.mkdir(exist_ok=True)
        (work / name).write_text("half done")
    (work / ".converted.kdna-00ff").mkdir()
    (work / "tuned").mkdir()
    (work / "tuned" / "thesis.txt").write_text("ten years")
    with work_folder(target, FILES, resume=True, folders=["converted", "tuned"]):
        pass
    assert [path.name for path in work.rglob("*")] == ["tuned", "thesis.txt"]


def test_a_run_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "net", writes=False, fails=True)
    assert list(tmp_path.iterdir()) == []
