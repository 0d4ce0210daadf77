"""NAME.part beside the output folder NAME: the files from which a stopped run can be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import is_ours


def work_place(target: Path) -> Path:
    """The path of the work folder of `target`."""
    return target.with_name(f"{target.name}.part")


@contextmanager
def work_folder(target: Path, files: Sequence[str], resume: bool, folders: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the work folder of `target`, and remove its contents when the block ends without an exception.

    Args:
        target: The output folder.
        files: The names of the files that the run writes there.
        resume: Whether to keep files of an earlier run; otherwise they are removed first.
        folders: The names of the converted folders that the run writes there.

    Files with other names, and folders that kdna did not write, are kept.
    """
    work = work_place(target)
    if not resume:
        clear(work, files, folders)
    try:
        yield work
    except BaseException:
        clear(work)
        raise
    clear(work, files, folders)


def clear(work: Path, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Remove these files and folders of a work folder with their drafts, and the work folder itself if it is empty."""
    for name in files:
        for path in (work / name, *work.glob(f".{name}.*")):
            path.unlink(missing_ok=True)
    for name in folders:
        for path in (work / name, *work.glob(f".{name}.kdna-*")):
            if is_ours(path):
                shutil.rmtree(path)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
