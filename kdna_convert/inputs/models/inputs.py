"""The input of a net: the DataConfig it declares, changes to it, and an input of that size."""

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
from ...core.specs import SAMPLE_RATES, DataConfig, Shape, is_wave, product
from .names import ModelName

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# timm's own, and two that cut a part of the image at full size (inputs/data/cropping.py).
CROP_MODES = ("center", "squash", "border", "middle", "random")
# Frames of a clip: torchvision's weights of a video net give the size of a frame only.
_FRAMES = 16


def data_config(name: ModelName, model: nn.Module) -> DataConfig:
    """How images become this model's input: by its `pretrained_cfg`, its torchvision weights, or ImageNet's values.

    timm nets have their training size, as on their model cards. Raises ModelError KD302 for a `pretrained_cfg` that
    does not describe an image.
    """
    declared = _torchvision_preset(name, model) if name.source == "torchvision" else _declared(model)
    try:
        config = _config_of(declared)
    except (ValidationError, TypeError) as error:
        raise ModelError("KD302", f"{name.text}: its pretrained_cfg does not describe an image: {declared}") from error
    if name.source == "timm":
        config = _with_arguments(config, name.kwargs)
    problem = input_problem(config)
    if problem:
        raise ModelError("KD302", f"{name.text}: its pretrained_cfg is invalid: {problem}")
    return config


def override(
    config: DataConfig,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: Sequence[int] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    crop_mode: str | None = None,
    sample_rate: int | None = None,
) -> DataConfig:
    """`config` with the given fields changed.

    Args:
        config: The net's own input.
        mean: One value for each channel, or one for all.
        std: One value for each channel, or one for all.
        input_size: (side,), (height, width) or (channels, height, width); of sounds (samples,), (channels, samples),
            or with an axis of 1.
        crop_pct: The share of the resized image's side that the crop keeps.
        interpolation: One of INTERPOLATIONS.
        crop_mode: One of CROP_MODES.
        sample_rate: Of sounds, in Hz. For a net that states none, mean is then 0 and std 1 unless given.

    Raises:
        DataError: KD406 for a value that no image or sound can have.
    """
    if sample_rate is not None and config.sample_rate is None:
        config = replace(config, mean=(0.0,), std=(1.0,), sample_rate=sample_rate)
    full_size = _full_size if config.sample_rate is None else _of_samples
    size = config.input_size if input_size is None else full_size(config.input_size, tuple(input_size))
    changed = replace(
        config,
        input_size=size,
        mean=_per_channel(mean, config.mean, size[0]),
        std=_per_channel(std, config.std, size[0]),
        crop_pct=config.crop_pct if crop_pct is None else crop_pct,
        interpolation=interpolation or config.interpolation,
        crop_mode=crop_mode or config.crop_mode,
        sample_rate=config.sample_rate if sample_rate is None else sample_rate,
    )
    problem = input_problem(changed)
    if problem:
        raise DataError("KD406", problem)
    return changed


def resized(config: DataConfig, shape: Shape) -> DataConfig:
    """`config` for inputs of this shape, channels first. Raises DataError KD406 for less than two axes."""
    if len(shape) < 2:
        way_out = "pass a batch of inputs (N, channels, height, width)"
        raise DataError("KD406", f"DATA gives inputs of shape {shape}; {way_out}")
    mean, std = (_per_channel(None, values, shape[0]) for values in (config.mean, config.std))
    return replace(config, input_size=tuple(shape), mean=mean, std=std)


def example_input(config: DataConfig, batch: int = 1, seed: int = 0) -> Tensor:
    """A batch (batch, *input_size) of standard normal noise, with the mean and variance of normalized images."""
    return torch.randn((batch, *config.input_size), generator=torch.Generator().manual_seed(seed))


def declared_config(model: nn.Module) -> DataConfig:
    """The input that a model's `pretrained_cfg` declares, with ImageNet's values for other fields."""
    return _config_of(_declared(model))


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


def input_problem(config: DataConfig) -> str | None:
    """Why no image becomes such an input, or None."""
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
    if config.crop_mode not in CROP_MODES:
        return f"crop mode {config.crop_mode!r}: must be one of {', '.join(CROP_MODES)}"
    if config.sample_rate is not None and config.sample_rate not in SAMPLE_RATES:
        return f"sample rate {config.sample_rate}: must be {SAMPLE_RATES[0]:,} to {SAMPLE_RATES[-1]:,} Hz"
    return None


def _declared(model: nn.Module) -> dict[str, Any]:
    carried = carried_cfg(model)
    return {key: carried[key] for key in asdict(DataConfig()) if carried.get(key)}


def _config_of(declared: Mapping[str, Any]) -> DataConfig:
    """ImageNet's values for the fields that are not declared. Sounds without mean and std are not normalized."""
    config = DataConfig(**declared)
    if config.sample_rate is None:
        return config
    channels = product(config.input_size[:1])
    plain: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    return replace(config, **{key: value for key, value in plain.items() if key not in declared})


def _with_arguments(config: DataConfig, kwargs: Mapping[str, Any]) -> DataConfig:
    """The arguments `in_chans` and `img_size`: timm's pretrained_cfg keeps the values of the pretrained weights."""
    channels, size = kwargs.get("in_chans"), kwargs.get("img_size")
    height_width = config.input_size[1:] if size is None else _pair(size)
    return override(config, input_size=(channels or config.input_size[0], *height_width))


def _torchvision_preset(name: ModelName, model: nn.Module) -> dict[str, Any]:
    """The fields of torchvision's transform for these weights, by default the newest."""
    weights = torchvision.models.get_model_weights(name.path)
    given = name.kwargs.get("weights")
    preset = (weights[given.rpartition(".")[2]] if isinstance(given, str) else weights.DEFAULT).transforms()
    fields = {key: tuple(getattr(preset, key)) for key in ("mean", "std") if hasattr(preset, key)}
    if hasattr(preset, "interpolation"):
        fields["interpolation"] = preset.interpolation.value
    crop, resize = getattr(preset, "crop_size", None), getattr(preset, "resize_size", None)
    own: Any = getattr(model, "transform", None)
    if crop is None and own is not None:  # detection: the net resizes and normalizes itself
        side = int(own.min_size[-1])
        return {"input_size": (3, side, side), "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": 1.0}
    if crop is None:  # segmentation: the whole image, shorter side to `resize`; optical flow has neither
        return fields | {"input_size": (3, *_pair(resize or 224)), "crop_pct": 1.0}
    video = "Video" in type(preset).__name__
    size = _pair(crop)
    crop_pct = _crop_pct(size[0], _pair(resize)[0] if resize else size[0])
    return fields | {"input_size": (3, _FRAMES, *size) if video else (3, *size), "crop_pct": crop_pct}


def _crop_pct(crop: int, resize: int) -> float:
    """The fraction from which timm computes `resize` again, as floor(crop / fraction)."""
    fraction = crop / resize
    return math.nextafter(fraction, 0.0) if math.floor(crop / fraction) < resize else fraction


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size,) if isinstance(size, int) else tuple(size)
    return sides[0], sides[-1]


def _full_size(own: Shape, size: Shape) -> Shape:
    if len(size) == 1:
        return own[0], size[0], size[0]
    return (own[0], *size) if len(size) == 2 else size


def _of_samples(own: Shape, size: Shape) -> Shape:
    """A size of sounds. A number of samples alone replaces that of the net's own size, if that is one of sounds."""
    if len(size) > 1:
        return size
    return (own[0], *(size[0] if side > 1 else 1 for side in own[1:])) if is_wave(own) else (1, *size)


def _per_channel(given: Sequence[float] | None, own: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value per channel: those given, else the net's own, or their mean where the number of channels changed."""
    values = tuple(own if given is None else given)
    if len(values) == 1 or (given is None and len(values) != channels):
        return (sum(values) / len(values),) * channels
    return values
