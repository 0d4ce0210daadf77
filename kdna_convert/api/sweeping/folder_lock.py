"""One sweep at a time writes a folder: its file `.lock` is locked, also by the processes that the sweep starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...core.atomic import disk_errors
from ...core.errors import FolderError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[tuple[int, ...]]:
    """Hold the lock of a folder inside the block. Yields the open file, which the processes of the sweep inherit.

    A process of this machine that outlives a killed sweep holds the lock on, so that no second one writes to the same
    job. Jobs in a queue of Slurm do not hold it. Where the system has no such locks (Windows), nothing is held.

    Raises:
        FolderError: KD614 if another sweep holds it; KD604 if the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            why = f"another sweep, or a job of one that was killed, is running in {folder}"
            raise FolderError("KD614", f"{why}; wait until it ends, or write to another folder") from None
        yield (handle,)
    finally:
        os.close(handle)
