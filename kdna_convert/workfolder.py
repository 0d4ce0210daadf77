"""NAME.part beside a folder NAME that is to be written: what a stopped run can be gone on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder(target: Path, files: Sequence[str], resume: bool) -> Iterator[Path]:
    """The folder beside `target` for these `files`: they are removed first unless `resume`, and when the block ends
    without an exception. What is in it under other names is someone else's, and stays.
    """
    work = target.with_name(f"{target.name}.part")
    if not resume:
        _clear(work, files)
    try:
        yield work
    except BaseException:
        _clear(work, ())
        raise
    _clear(work, files)


def _clear(work: Path, files: Sequence[str]) -> None:
    """Remove these files of a folder, and the folder where nothing is left in it."""
    for name in files:
        (work / name).unlink(missing_ok=True)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
