"""Inputs and outputs of nets as pictures of bytes: the normalization undone, the size reduced."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.disagreement import Pixels
from ...core.specs import DataConfig, is_wave

# Parts of a sound of which the extremes are drawn.
_PARTS = 80
# What a difference is multiplied by, so that it is seen; the largest that leaves nearly all of it in 0..1.
_GAINS = (1, 2, 5, 10, 20, 50, 100)
_NEARLY_ALL = 0.99


def picture_of(x: Tensor, config: DataConfig) -> Tensor | None:
    """One input of a net as a picture (1 or 3, height, width) in 0..1; of a clip its middle frame.

    None for what is no picture. Of four channels, which are those of RGBA, the first three.
    """
    x_chw = x[:, x.shape[1] // 2] if x.ndim == 4 else x
    if x_chw.ndim != 3 or x_chw.shape[0] not in (1, 3, 4) or is_sound(x, config) or len(config.mean) != len(x):
        return None
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    return (x_chw.float().cpu() * std + mean).clamp(0, 1)[:3]


def is_sound(x: Tensor, config: DataConfig) -> bool:
    return config.sample_rate is not None and is_wave(tuple(x.shape))


def why_unseen(x: Tensor, config: DataConfig) -> str:
    """Why inputs like this one are not shown as pictures; empty where they are."""
    if is_sound(x, config):
        return "The inputs are sounds, drawn as waves."
    if picture_of(x, config) is None:
        return f"The inputs, of shape {tuple(x.shape)}, are not shown: they are no pictures."
    return ""


def wave_of(x: Tensor, config: DataConfig) -> tuple[tuple[float, float], ...]:
    """The largest and the smallest sample of each part of a sound, its channels averaged, in -1..1."""
    channels = x.flatten(1).float().cpu()
    mean, std = (torch.tensor(values)[:, None] for values in (config.mean, config.std))
    samples = (channels * std + mean).mean(0).clamp(-1, 1)
    parts = torch.tensor_split(samples, min(_PARTS, len(samples)))
    return tuple((round(float(part.max()), 3), round(float(part.min()), 3)) for part in parts)


def pixels(picture_chw: Tensor, most: int | None = None) -> Pixels:
    """A picture (1 or 3, height, width) in 0..1 as bytes, its longer side reduced to `most`."""
    _, height, width = picture_chw.shape
    if most is not None and max(height, width) > most:
        size = [max(1, round(side * most / max(height, width))) for side in (height, width)]
        picture_chw = F.interpolate(picture_chw[None], size, mode="bilinear", antialias=True)[0]
    values = (picture_chw.clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, 2).contiguous()
    return Pixels(values.shape[1], values.shape[0], values.shape[2], values.numpy().tobytes())


def marked(picture_chw: Tensor, mask_hw: Tensor) -> Tensor:
    """The picture in gray and darker, and in orange the pixels of the mask, which may have another size."""
    mask = F.interpolate(mask_hw.float()[None, None], picture_chw.shape[1:], mode="nearest")[0]
    orange = torch.tensor((1.0, 0.55, 0.1))[:, None, None]
    return torch.where(mask > 0, orange, 0.5 * picture_chw.mean(0, keepdim=True).expand(3, -1, -1))


def amplified(difference: Tensor) -> tuple[int, Tensor]:
    """By how much a difference is multiplied, and the picture of it around gray."""
    reach = float(torch.quantile(difference.abs().flatten(), _NEARLY_ALL))
    gain = max((gain for gain in _GAINS if gain * reach <= 0.5), default=1)
    return gain, (0.5 + gain * difference).clamp(0, 1)


def largest_part(difference_chw: Tensor, side: int) -> tuple[slice, slice]:
    """The rows and columns of the part, at most `side` pixels high and wide, in which most of the difference is."""
    height, width = (min(side, own) for own in difference_chw.shape[1:])
    step = 16
    energy = F.avg_pool2d(difference_chw.square().sum(0)[None, None], (height, width), step)[0, 0]
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    return slice(row * step, row * step + height), slice(column * step, column * step + width)
