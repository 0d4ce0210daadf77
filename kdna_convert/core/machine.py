"""What this machine is called."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's name: Linux's, else that of the platform."""
    if _CPU.exists():
        names = [line for line in _CPU.read_text(errors="replace").splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()
