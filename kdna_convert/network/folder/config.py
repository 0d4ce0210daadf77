"""config.json's part for timm: the architecture and pretrained_cfg, as timm writes them for the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .conversion import Conversion

# Keys of timm's pretrained_cfg that say where the original's weights are.
_SOURCES = frozenset({"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "custom_load", "source"})


def timm_config(conversion: Conversion) -> dict[str, Any]:
    """The fields that timm writes to config.json, as far as the model has them."""
    model = conversion.model
    given = getattr(model, "pretrained_cfg", None)
    timm = {key: value for key, value in given.items() if _is_plain(key, value)} if isinstance(given, Mapping) else {}
    config: dict[str, Any] = {"architecture": timm.get("architecture", conversion.plan.model.name)}
    counts = {name: getattr(model, name, None) for name in ("num_classes", "num_features")}
    config |= {name: count for name, count in counts.items() if isinstance(count, int)}
    return config | ({"pretrained_cfg": timm} if timm else {})


def _is_plain(key: str, value: object) -> bool:
    return key not in _SOURCES and isinstance(value, str | int | float | list | tuple)
