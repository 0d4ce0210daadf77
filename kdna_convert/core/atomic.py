"""Folders and files that are written whole or not at all, even if the process is killed.

A folder is written beside its place under a hidden name, `.NAME.kdna-XXXXXXXX`, flushed to the disk and then moved. The
next write to the same place removes what a killed process left there.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FolderError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder; when the block ends without an exception, it replaces `target`.

    Until then `target` is unchanged. Raises OSError.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if target.exists():
            _exchange(temporary, target)
        else:
            temporary.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all. Missing folders are created. Raises FolderError KD604."""
    with _draft(Path(path)) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all. Missing folders are created. Raises FolderError KD604."""
    with _draft(Path(path)) as draft:
        draft.write_bytes(data)


def require_writable(path: str | Path) -> None:
    """Check before the work that something can be written at `path`. Nothing is left there.

    Raises FolderError KD604. A full disk shows only when the file is written.
    """
    with disk_errors(Path(path)):
        place = next(folder for folder in Path(path).absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=place):
            pass


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an OSError of a write that leaves no trace into FolderError KD604."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise FolderError("KD604", f"{target} could not be written: {reason}; nothing was left behind") from error


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file beside `target` to write to. It replaces `target` when the block ends without an exception."""
    draft = target.with_name(f".{target.name}.draft")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.kdna-{secrets.token_hex(4)}")


def _retired(target: Path) -> Path:
    return target.with_name(f".{target.name}.kdna-old")


def _clear_leftovers(target: Path) -> None:
    """Undo what a killed process began: restore an old folder that was moved away, remove what was half written."""
    if _retired(target).exists() and not target.exists():
        _retired(target).rename(target)
    for path in target.parent.iterdir():
        if path.name.startswith(f".{target.name}.kdna-"):
            shutil.rmtree(path)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders: in one step where the system can (Linux), else in three moves."""
    if sys.platform == "linux":
        renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
        if renameat2 and not renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
            return
    old.rename(_retired(old))
    try:
        new.rename(old)
    except OSError:
        _retired(old).rename(old)
        raise
    _retired(old).rename(new)


def _flush(path: Path) -> None:
    """Write to the disk now: a rename that survives a power failure must not name a file that does not."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
