"""The stack on which this thread's signal handlers run, kept as it was by a library that changes it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DISABLED = 2  # SS_DISABLE of Linux's <signal.h>


class SignalStack(ctypes.Structure):
    """Linux's `stack_t` (sigaltstack(2))."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Set the thread's alternate signal stack back to what it was before the block.

    Each `openvino.Core` brings a stack of its own and, at its end, sets the one before it. With two of them, the stack
    that is left may have been unmapped: then the next signal that Python handles, such as the end of a child process,
    is a segmentation fault. Does nothing where the system is not Linux, on which alone OpenVINO does so.
    """
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        # The kernel refuses a stack that is too small for a process that now uses AMX: then there is none, and handlers
        # run on the thread's own.
        if libc.sigaltstack(ctypes.byref(before), None) != 0:
            libc.sigaltstack(ctypes.byref(SignalStack(flags=DISABLED)), None)
