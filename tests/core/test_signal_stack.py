"""Signals are handled after a library has changed the stack of their handlers."""

import sys

import pytest
from support.processes import run_script

BROKEN = """
import ctypes, faulthandler, mmap, os, signal
from kdna_convert.core.signal_stack import SignalStack, kept_signal_stack

def leave_an_unmapped_stack():
    memory = mmap.mmap(-1, 1 << 16)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    assert libc.sigaltstack(ctypes.byref(SignalStack(address, 0, 1 << 16)), None) == 0
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(1 << 16))

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
"""
# Without the first line, there is no stack of their own before the block.
BEFORE = pytest.mark.parametrize("before", ["faulthandler.enable()", ""])
KILL = "os.kill(os.getpid(), signal.SIGUSR1)"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's stack_t")
@BEFORE
def test_a_signal_after_the_block_is_handled_whatever_the_block_left(before: str) -> None:
    kept = f"{BROKEN}{before}\nwith kept_signal_stack():\n    leave_an_unmapped_stack()\n{KILL}"
    assert run_script(kept) == (0, "handled\n")
    assert run_script(f"{BROKEN}{before}\nleave_an_unmapped_stack()\n{KILL}")[0] < 0  # what the block is for
