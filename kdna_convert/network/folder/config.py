"""timm's description of a net: `pretrained_cfg` and `num_classes`, kept equal to what the conversion used."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from torch import nn

from ...core.specs import DataConfig
from ...inputs.models import carried_cfg

# Keys of timm's pretrained_cfg that say where the original's weights are.
_SOURCES = frozenset({"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "custom_load", "source"})
# Keys that hold for the carried input size, crop or classes only. `pool_size` stays, as None: timm always has that key.
_OF_SIZE, _OF_CROP = ("test_input_size", "test_pool_size"), ("test_crop_pct",)
_OF_CLASSES = ("label_names", "label_descriptions", "label_offset")


def describe(model: nn.Module, data: DataConfig) -> None:
    """Set the model's `pretrained_cfg` (and `default_cfg` where it has one) and `num_classes`, in place.

    They hold the input that `data` says and the number of classes that the model has. A `pretrained_cfg` that the model
    carries keeps its type, a dict or timm's PretrainedCfg, and is replaced, not edited.
    """
    target: Any = model
    carried, cfg = getattr(model, "pretrained_cfg", None), described(model, data)
    if is_dataclass(carried) and not isinstance(carried, type):
        target.pretrained_cfg = replace(carried, **{each.name: cfg.get(each.name) for each in fields(carried)})
    else:
        target.pretrained_cfg = cfg
    if hasattr(model, "default_cfg"):
        target.default_cfg = target.pretrained_cfg
    known, count = getattr(model, "num_classes", None), class_count(model)
    if isinstance(known, int) and known != count:
        target.num_classes = count


def described(model: nn.Module, data: DataConfig) -> dict[str, Any]:
    """The model's `pretrained_cfg` with the input and the number of classes in use; as timm changes one for the Hub."""
    carried = carried_cfg(model)
    cfg = carried | {key: value for key, value in asdict(data).items() if value is not None}
    if cfg["input_size"] != _tuple(carried.get("input_size")):
        cfg = {key: value for key, value in cfg.items() if key not in _OF_SIZE}
        cfg |= {"pool_size": None} if "pool_size" in cfg else {}
    if cfg["crop_pct"] != carried.get("crop_pct"):
        cfg = {key: value for key, value in cfg.items() if key not in _OF_CROP}
    count = class_count(model)
    if count is not None and count != carried.get("num_classes"):
        cfg = {key: value for key, value in cfg.items() if key not in _OF_CLASSES} | {"num_classes": count}
    return cfg


def class_count(model: nn.Module) -> int | None:
    """The width of the layer that timm calls the classifier, else `num_classes`; None where the model has neither."""
    get_classifier: Any = getattr(model, "get_classifier", None)
    classifier = get_classifier() if callable(get_classifier) else None
    for owner, name in ((classifier, "out_features"), (classifier, "out_channels"), (model, "num_classes")):
        count = getattr(owner, name, None)
        if isinstance(count, int):
            return count
    return None


def timm_config(model: nn.Module, name: str, data: DataConfig) -> dict[str, Any]:
    """The fields that timm writes to config.json, as far as the model has them. `name` is the MODEL."""
    cfg = {key: value for key, value in described(model, data).items() if _is_plain(key, value)}
    config: dict[str, Any] = {"architecture": cfg.get("architecture", name)}
    counts = {"num_classes": class_count(model), "num_features": getattr(model, "num_features", None)}
    return config | {key: count for key, count in counts.items() if isinstance(count, int)} | {"pretrained_cfg": cfg}


def _tuple(size: Any) -> Any:
    return tuple(size) if isinstance(size, list) else size


def _is_plain(key: str, value: object) -> bool:
    return key not in _SOURCES and isinstance(value, str | int | float | list | tuple)
