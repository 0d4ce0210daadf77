"""The octaves of a layer's input, and a factor for each of them at each position: FDConv's frequency band modulation.

    x' = x + sum_j (2 sigmoid(conv_j(x)) - 1) high_j        high_j = low_(j-1) - low_j, low_0 = x

low_j keeps what lies below 1/4, 1/8 and 1/16 of a cycle a pixel along both axes. That square is a product of two
projections, one an axis, so that two matrix products do what a transform of the feature map and back would, at the
size of feature maps in less time, at any precision, and in any runtime. Written as a change of x, it is exactly x while
the convolutions are zero, however the parts are rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import torch
from torch import Tensor, nn

OCTAVES = (2, 4, 8)


class InputBands(nn.Module):
    """(batch, channels, height, width) to the same; `conv` has one output channel an octave and starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = zero(nn.Conv2d, channels, len(OCTAVES), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        changes = torch.tanh(self.conv(x) / 2).to(x.dtype)  # 2 sigmoid - 1
        result, above = x, x
        for octave, change in zip(OCTAVES, changes.split(1, dim=1), strict=True):
            below = lowpass(x.shape[-2], octave, x) @ x @ lowpass(x.shape[-1], octave, x)
            result = result + change * (above - below)
            above = below
        return result


def lowpass(size: int, octave: int, like: Tensor) -> Tensor:
    """(size, size): the projection onto frequencies below 1 / (2 octave) cycles a pixel, symmetric and circulant."""
    places = torch.arange(size, device=like.device)
    kept = torch.arange(1, (size - 1) // (2 * octave) + 1, device=like.device)
    angles = (2 * pi / size) * (places[:, None] * kept % size).to(torch.promote_types(like.dtype, torch.float32))
    response = (1 + 2 * angles.cos().sum(1)) / size
    return response[(places[:, None] - places) % size].to(like.dtype)


def zero(kind: Callable[..., nn.Module], *sizes: int, **options: Any) -> nn.Module:
    """A layer of this class whose every number is zero; draws nothing from the global random state."""
    layer: nn.Module = nn.utils.skip_init(kind, *sizes, **options)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
