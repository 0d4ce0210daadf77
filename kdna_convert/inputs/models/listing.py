"""The list of all names that MODEL takes, for completion and `kdna ls models`."""

from __future__ import annotations

import timm
import torchvision

from .building import BUNDLED


def known_models() -> list[str]:
    """Every architecture of timm, every model of torchvision and every bundled net, as MODEL is written."""
    torchvision_names = (f"torchvision:{name}" for name in torchvision.models.list_models())
    return [*timm.list_models(), *torchvision_names, *(f"kdna:{name}" for name in BUNDLED)]
