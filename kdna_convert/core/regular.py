"""Reading files that a stranger may have made: regular files only, of a limited size, without waiting.

A FIFO or a device in the place of a file would block for ever or never end. A link to a regular file is one.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

# The most bytes of a text file in a folder: the largest plan of a large net has about a tenth of it.
TEXT_LIMIT = 16 * 2**20


def open_regular(path: str | Path) -> FileIO:
    """Open a regular file for reading, unbuffered. Raises OSError for anything else."""
    require_regular(path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(os.fstat(handle), path)  # it may have been replaced in between
    except OSError:
        os.close(handle)
        raise
    return FileIO(handle, "rb")


def read_regular(path: str | Path, limit: int = TEXT_LIMIT) -> bytes:
    """The bytes of a regular file. Raises OSError for anything else, and for a file above `limit` bytes."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return data


def require_regular(path: str | Path) -> None:
    """Raise OSError for anything but a regular file, or a link to one."""
    _require_regular(Path(path).stat(), path)


def _require_regular(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
