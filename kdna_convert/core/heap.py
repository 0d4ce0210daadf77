"""Keep freed memory in the process for the next tensor, instead of returning it to the system.

glibc returns a large block when it is freed, and the kernel then clears every page of the next one: half of the time of
a ResNet-20 on a batch of 32 small images, a tenth of a training step. Only the command line sets this: a library does
not change the allocator of the program that imports it.
"""

from __future__ import annotations

import ctypes
import os

# From malloc.h. Blocks up to 32 MiB, the maximum that glibc allows, come from the heap; the heap shrinks only when more
# than 512 MiB of it are free.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _BLOCK = 512 << 20, 32 << 20
_ENVIRONMENT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed() -> bool:
    """Let this process keep up to 512 MiB of freed memory, and return whether it does.

    Nothing changes without glibc, or where the environment configures the allocator.
    """
    if any(name in os.environ for name in _ENVIRONMENT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT))
