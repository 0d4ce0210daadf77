"""The names that can be typed without knowing them."""

from __future__ import annotations

import timm
import torchvision


def known_models() -> list[str]:
    """Every architecture of timm, then every model of torchvision, as MODEL is written."""
    return [*timm.list_models(), *(f"torchvision:{name}" for name in torchvision.models.list_models())]
