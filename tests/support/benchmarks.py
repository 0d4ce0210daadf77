"""The scripts of benchmarks/ as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from .places import ROOT


def benchmark(name: str) -> ModuleType:
    """The script of this name, as a module. It imports its neighbors by their names, as it does when it is run."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
