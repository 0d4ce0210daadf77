"""Laws of heap.py: what is freed is kept, unless the environment says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from kdna_convert.core.heap import keep_freed
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = bytearray(8 << 20)
        block[::4096] = bytes(2048)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = keep_freed()
faults()
print(kept, faults())
"""


def _run(**environment: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run([sys.executable, "-c", FAULTS], env=clean | environment, capture_output=True, text=True)
    kept, faults = ran.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_block_that_was_freed_is_taken_again_without_page_faults() -> None:
    kept, faults = _run()
    assert kept
    assert faults < 200  # of 20 blocks of 2,048 pages


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_allocator_settings_of_the_environment_are_kept(name: str) -> None:
    kept, faults = _run(**{name: "131072"})
    assert not kept
    assert faults >= 20
