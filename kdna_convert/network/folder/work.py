"""NAME.part beside a folder NAME that is to be written: what a stopped run can be gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import is_ours


def work_place(target: Path) -> Path:
    """Where the work folder of `target` is."""
    return target.with_name(f"{target.name}.part")


@contextmanager
def work_folder(target: Path, files: Sequence[str], resume: bool, folders: Sequence[str] = ()) -> Iterator[Path]:
    """The folder beside `target` for these `files`, and for converted `folders`: they are removed first unless
    `resume`, and when the block ends without an exception. What is in it under other names, or in a folder of such a
    name but not written by kdna, is someone else's, and stays.
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
    """Remove these of a work folder, what a killed process was writing of them, and it where nothing is left in it."""
    for name in files:
        for path in (work / name, *work.glob(f".{name}.*")):
            path.unlink(missing_ok=True)
    for name in folders:
        for path in (work / name, *work.glob(f".{name}.kdna-*")):
            if is_ours(path):
                shutil.rmtree(path)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
