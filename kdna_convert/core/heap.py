"""Freed memory is kept for the next tensor, instead of going back to the system and coming anew, page by page.

glibc gives a large block back when it is freed, and the kernel clears each page of the next one: of a ResNet-20's time
for a batch of 32 small images that was half, of a training step a tenth. A library does not set this for the program
that it is part of; the command line does, for its own.
"""

from __future__ import annotations

import ctypes
import os

# malloc.h. Blocks up to 32 MiB, the most that glibc takes, come from the heap; it shrinks when so much of it is free.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _BLOCK = 512 << 20, 32 << 20
_SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> bool:
    """Let this process keep up to 512 MiB that it has freed. Whether it does: elsewhere than on glibc, or where the
    environment says what the allocator is to do, nothing changes."""
    if any(name in os.environ for name in _SAID):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT))
