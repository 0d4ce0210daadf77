"""The list of all names that MODEL takes, for completion and `kdna ls models`, and what came of converting each."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torchvision

from .building import BUNDLED


def known_models() -> list[str]:
    """Every architecture of timm, every model of torchvision and every bundled net, as MODEL is written."""
    torchvision_names = (f"torchvision:{name}" for name in torchvision.models.list_models())
    return [*timm.list_models(), *torchvision_names, *(f"kdna:{name}" for name in BUNDLED)]


def coverage() -> dict[str, str]:
    """The outcome of benchmarks/coverage.py by name: converts, or why not. Names of other releases are missing."""
    found: dict[str, str] = json.loads((Path(__file__).parent / "coverage.json").read_text(encoding="utf-8"))
    return found
