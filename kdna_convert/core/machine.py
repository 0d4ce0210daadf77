"""What this machine is called, and the versions of what computes on it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

_CPU = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The processor's name: Linux's, else that of the platform."""
    if _CPU.exists():
        names = [line for line in _CPU.read_text(errors="replace").splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_versions() -> dict[str, str]:
    """The processor, and the versions of kdna, torch and Python. Imports none of them."""
    versions = {"kdna": metadata.version("kdna-convert"), "torch": metadata.version("torch")}
    return {"processor": cpu_name(), **versions, "Python": platform.python_version()}
