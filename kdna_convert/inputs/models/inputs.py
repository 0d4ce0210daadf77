"""What a net expects its input to be: the DataConfig it carries, changes to it, and an input of that shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn

from ...core.errors import DataError, ModelError
from ...core.specs import DataConfig
from .names import ModelName

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# A video net takes clips; torchvision's weights name the size of a frame, not the length of a clip.
_FRAMES = 16


def data_config(name: ModelName, model: nn.Module) -> DataConfig:
    """How images become this model's input: by its `pretrained_cfg`, its torchvision weights, or as usual for ImageNet.

    timm nets are taken at their training size, as their model cards do. Raises ModelError KD302 when a model carries a
    `pretrained_cfg` that cannot be used.
    """
    known = _torchvision_preset(name, model) if name.source == "torchvision" else _pretrained_cfg(model)
    try:
        config = DataConfig(**known)
    except (ValidationError, TypeError) as error:
        raise ModelError("KD302", f"{name.text}: its pretrained_cfg does not describe an image: {known}") from error
    if name.source == "timm":
        config = _as_asked(config, name.kwargs)
    complaint = _complaint(config)
    if complaint:
        raise ModelError("KD302", f"{name.text}: its pretrained_cfg is wrong: {complaint}")
    return config


def override(
    config: DataConfig,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: Sequence[int] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
) -> DataConfig:
    """`config` with what is given changed. A size may be (side,), (height, width) or (channels, height, width).

    One mean or std serves all channels. Raises DataError KD406 for a value that no image transform accepts.
    """
    size = config.input_size if input_size is None else _full_size(config.input_size[0], tuple(input_size))
    changed = replace(
        config,
        input_size=size,
        mean=_per_channel(mean, config.mean, size[0]),
        std=_per_channel(std, config.std, size[0]),
        crop_pct=config.crop_pct if crop_pct is None else crop_pct,
        interpolation=interpolation or config.interpolation,
    )
    complaint = _complaint(changed)
    if complaint:
        raise DataError("KD406", complaint)
    return changed


def example_input(config: DataConfig, batch: int = 1, seed: int = 0) -> Tensor:
    """A batch (batch x input size) of normal noise: in mean and variance what a normalised image is to a net."""
    return torch.randn((batch, *config.input_size), generator=torch.Generator().manual_seed(seed))


def carried_cfg(model: nn.Module) -> dict[str, Any]:
    """A copy of the `pretrained_cfg` that a model carries, a dict or timm's PretrainedCfg; empty where it has none.

    Raises ModelError KD302 where it is something else.
    """
    carried: Any = getattr(model, "pretrained_cfg", None)
    if carried is None:
        return {}
    if is_dataclass(carried) and not isinstance(carried, type):
        return asdict(carried)
    if not isinstance(carried, Mapping):
        raise ModelError(
            "KD302", f"{type(model).__name__}: its pretrained_cfg is a {type(carried).__name__}; it must be a dict"
        )
    return dict(carried)


def _pretrained_cfg(model: nn.Module) -> dict[str, Any]:
    carried = carried_cfg(model)
    return {key: carried[key] for key in asdict(DataConfig()) if carried.get(key)}


def _as_asked(config: DataConfig, kwargs: Mapping[str, Any]) -> DataConfig:
    """timm's pretrained_cfg describes the weights' images even when other channels or another size were asked for."""
    channels, size = kwargs.get("in_chans"), kwargs.get("img_size")
    height_width = config.input_size[1:] if size is None else _full_size(1, _pair(size))[1:]
    return override(config, input_size=(channels or config.input_size[0], *height_width))


def _torchvision_preset(name: ModelName, model: nn.Module) -> dict[str, Any]:
    """The fields of torchvision's own transform for these weights (the newest, when the name asks for none)."""
    weights = torchvision.models.get_model_weights(name.path)
    asked = name.kwargs.get("weights")
    preset = (weights[asked.rpartition(".")[2]] if isinstance(asked, str) else weights.DEFAULT).transforms()
    known = {key: tuple(getattr(preset, key)) for key in ("mean", "std") if hasattr(preset, key)}
    if hasattr(preset, "interpolation"):
        known["interpolation"] = preset.interpolation.value
    crop, resize = getattr(preset, "crop_size", None), getattr(preset, "resize_size", None)
    own: Any = getattr(model, "transform", None)
    if crop is None and own is not None:  # detection: the net resizes and normalises by itself
        side = int(own.min_size[-1])
        return {"input_size": (3, side, side), "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": 1.0}
    if crop is None:  # segmentation: the whole image, shorter side to `resize`; optical flow has neither
        return known | {"input_size": (3, *_pair(resize or 224)), "crop_pct": 1.0}
    video = "Video" in type(preset).__name__
    size = _pair(crop)
    crop_pct = _crop_pct(size[0], _pair(resize)[0] if resize else size[0])
    return known | {"input_size": (3, _FRAMES, *size) if video else (3, *size), "crop_pct": crop_pct}


def _crop_pct(crop: int, resize: int) -> float:
    """The fraction that timm turns back into `resize`, by floor(crop / fraction)."""
    fraction = crop / resize
    return math.nextafter(fraction, 0.0) if math.floor(crop / fraction) < resize else fraction


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size,) if isinstance(size, int) else tuple(size)
    return sides[0], sides[-1]


def _full_size(channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
    if len(size) == 1:
        return channels, size[0], size[0]
    return (channels, *size) if len(size) == 2 else size


def _per_channel(given: Sequence[float] | None, known: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel; where the channels changed and none were given, the average of the known ones."""
    values = tuple(known if given is None else given)
    if len(values) == 1 or (given is None and len(values) != channels):
        return (sum(values) / len(values),) * channels
    return values


def _complaint(config: DataConfig) -> str | None:
    channels = config.input_size[0] if config.input_size else 0
    if len(config.input_size) < 2 or min(config.input_size) < 1:
        return f"input size {config.input_size}: give side, height width, or channels height width, each at least 1"
    for what, values in (("mean", config.mean), ("std", config.std)):
        if len(values) != channels or not all(math.isfinite(value) for value in values):
            return f"{what} {values}: give one number, or one for each of {channels} channels"
    if min(config.std) <= 0:
        return f"std {config.std}: must be above 0"
    if not 0 < config.crop_pct <= 1:
        return f"crop_pct {config.crop_pct}: must be above 0 and at most 1"
    if config.interpolation not in INTERPOLATIONS:
        return f"interpolation {config.interpolation!r}: must be one of {', '.join(INTERPOLATIONS)}"
    return None
