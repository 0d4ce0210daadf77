"""frequency: FDConv's routing. Each image weighs the frequencies of the kernel, and those of the input.

    W(x) = sum_g a_g(x) W_g        W_g = the g-th of `bands` bands of W's spectrum (kernel_bands.py); sum_g W_g = W
    y = o(x) * conv(i(x) * x', t(x) * l(x) * W(x))        every factor 2 sigmoid(.) of a head that starts at zero

a, i, o and t, for bands, channels and taps, are the heads of one trunk on the input's means: fc1, a norm, s relu(.)^2 +
b. No W_g is stored: each is computed from the present W. `local` adds l, one factor for each weight, by a 1-d
convolution over the means. `input_bands` scales the octaves of the input at each position (input_bands.py), for 2-d
kernels of more than one tap, as published.

Source: Chen et al., FDConv, CVPR 2025 (arXiv 2503.18783). Its trunk has a batch norm; here it is a layer norm, so that
one image trains. Its converter is not exact, and its inverse transform supports even widths only; this one gives W at
every shape.
Cost, for c channels in, k out, t taps, P parameters, h = max(c / reduction, 16): c h + 2 h + 2 + (h + 1) (c + k + t +
bands) parameters; `bands` P multiply-adds per image, and a kernel for each image in memory. `local`: r k t + 2 c
parameters more and r P multiply-adds, with r about log2(c) / 2. `input_bands`: 3 (9 c + 1) parameters more and three
times two products with the whole input, which cost as much as the layers of a small net. W is transformed once per
batch.
The paper uses it for detection and segmentation. Loses in speed to gates on channels, by far with both switches on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, log2
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.specs import Layer, Shape, product
from .heads import all_zero, hidden_channels, linear, pooled, require_counts, zero_layer
from .input_bands import OCTAVES, InputBands
from .kernel_bands import bands_of, frequency_count, split_bands
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_mix


@dataclass(frozen=True)
class Frequency(Routing):
    """Options: `bands` of the kernel's spectrum; `reduction`, input channels over hidden ones; `local`, a factor for
    each weight; `input_bands`, factors of the input's octaves."""

    name: ClassVar[str] = "frequency"
    bands: int = 4
    reduction: int = 16
    local: bool = False
    input_bands: bool = False

    def __post_init__(self) -> None:
        require_counts(self.name, bands=(self.bands, 1), reduction=(self.reduction, 1))

    def can_route(self, layer: Layer) -> str | None:
        return can_mix(layer) or ("KD135" if self.local and layer.groups > 1 else None)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        return [(layer,) for layer in layers]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        return [FrequencyRouter(self, layer, seed) for layer, seed in zip(layers, seeds, strict=True)]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        channels, hidden = layer.input_channels, hidden_channels(layer, self.reduction)
        trunk = hidden * (channels + sum(self.heads(layer)))
        mixing = self.heads(layer)[3] * layer.params
        local = reach(channels) * layer.params if self.local else 0
        if not self.has_octaves(layer):
            return trunk + mixing + local
        lowpass = 2 * isqrt(layer.in_positions) * channels
        gate = 9 * channels
        return trunk + mixing + local + len(OCTAVES) * (lowpass + gate) * layer.in_positions

    def heads(self, layer: Layer) -> tuple[int, int, int, int]:
        """The numbers of factors: of input channels, output channels, taps and bands."""
        taps = layer.taps if layer.taps > 1 else 0
        return layer.input_channels, layer.out_channels, taps, min(self.bands, frequency_count(layer.shape))

    def has_octaves(self, layer: Layer) -> bool:
        """Whether the octaves of the layer's input have factors."""
        return self.input_bands and len(layer.shape) == 4 and layer.taps > 1


class FrequencyRouter(Router):
    """Factors of a layer's bands, channels and taps, with `local` of its weights, and of its input's octaves."""

    bins: Tensor
    kernels: Tensor | None = None

    def __init__(self, routing: Frequency, layer: Layer, seed: int) -> None:
        super().__init__(len(layer.shape) - 2)
        channels, hidden = layer.input_channels, hidden_channels(layer, routing.reduction)
        self.sizes = routing.heads(layer)
        self.taps = layer.shape[2:]
        self.fc1 = linear(channels, hidden, seed, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.scale, self.offset = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))
        self.heads = linear(hidden, sum(self.sizes), None)
        self.local = Local(channels, layer.shape) if routing.local else None
        self.octaves = InputBands(channels) if routing.has_octaves(layer) else None
        self.register_buffer("bins", bands_of(layer.shape, self.sizes[3]), persistent=False)

    def precompute(self, weight: Tensor) -> None:
        """Split the kernel once. In a graph, each Fourier transform would take hundreds of nodes."""
        self.kernels = split_bands(weight, self.bins, self.sizes[3])

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        means = pooled(x, self.spatial)
        hidden = self.scale * F.relu(self.norm(self.fc1(means))).square() + self.offset
        ins, outs, taps, mix = (2 * torch.sigmoid(self.heads(hidden))).split(self.sizes, dim=1)
        kernels = split_bands(weight, self.bins, self.sizes[3]) if self.kernels is None else self.kernels
        modulation = Modulation(
            x=None if self.octaves is None else self.octaves(x),
            inputs=ins,
            outputs=outs,
            taps=taps.view(-1, *self.taps) if taps.shape[1] else None,
            mix=mix,
            kernels=kernels,
        )
        if self.local is None:
            return modulation
        kernel = self.local(means) * modulation.kernel_of(weight)
        return Modulation(x=modulation.x, inputs=ins, outputs=outs, kernel=kernel)

    def is_identity(self) -> bool:
        parts = [self.heads, *(part.conv for part in (self.local, self.octaves) if part is not None)]
        return all_zero(*parts)


class Local(nn.Module):
    """One factor for each weight, from the means of the input channels around its own."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm = nn.LayerNorm(channels)
        width = reach(channels)
        self.conv = zero_layer(nn.Conv1d, 1, shape[0] * product(shape[2:]), width, padding=width // 2, bias=False)

    def forward(self, means: Tensor) -> Tensor:
        """The factors (batch, out, in, *taps) of means (batch, channels)."""
        factors = 2 * torch.sigmoid(self.conv(self.norm(means)[:, None]))
        outs, ins, *taps = self.shape
        return factors.view(-1, outs, product(tuple(taps)), ins).transpose(2, 3).reshape(-1, outs, ins, *taps)


def reach(channels: int) -> int:
    """The number of neighboring channels that a local factor depends on: odd, near log2(channels) / 2."""
    return round(log2(channels) / 2 + 0.5) // 2 * 2 + 1
