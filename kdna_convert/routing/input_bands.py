"""The octaves of a layer's input, each scaled at each position: FDConv's frequency band modulation.

    x' = x + sum_j (2 sigmoid(conv_j(x)) - 1) high_j        high_j = low_(j-1) - low_j, low_0 = x

low_j keeps the frequencies below 1/4, 1/8 and 1/16 cycles per pixel on both axes. This square is a product of two
projections, one per axis: two matrix products instead of a Fourier transform of the feature map and back. At the size
of feature maps this takes less time, at any precision, in any runtime. Written as a change of x, the result is exactly
x while the convolutions are zero, however the parts are rounded.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn

from .heads import zero_layer

OCTAVES = (2, 4, 8)


class InputBands(nn.Module):
    """Scale the octaves of a feature map (batch, channels, height, width).

    `conv` has one output channel per octave and starts at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = zero_layer(nn.Conv2d, channels, len(OCTAVES), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        changes = torch.tanh(self.conv(x) / 2).to(x.dtype)  # 2 sigmoid - 1
        result, above = x, x
        for octave, change in zip(OCTAVES, changes.split(1, dim=1), strict=True):
            below = lowpass(x.shape[-2], octave, x) @ x @ lowpass(x.shape[-1], octave, x)
            result = result + change * (above - below)
            above = below
        return result


def lowpass(size: int, octave: int, like: Tensor) -> Tensor:
    """The projection onto frequencies below 1 / (2 octave) cycles per pixel: (size, size), symmetric and circulant."""
    positions = torch.arange(size, device=like.device)
    kept = torch.arange(1, (size - 1) // (2 * octave) + 1, device=like.device)
    angles = (2 * pi / size) * (positions[:, None] * kept % size).to(torch.promote_types(like.dtype, torch.float32))
    response = (1 + 2 * angles.cos().sum(1)) / size
    return response[(positions[:, None] - positions) % size].to(like.dtype)
