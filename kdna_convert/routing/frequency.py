"""frequency: FDConv's routing. A kernel's frequencies are weighted image by image, and so are those of the input.

    W(x) = sum_g a_g(x) W_g        W_g = the g-th of `bands` bands of W's spectrum (bands.py); sum_g W_g = W
    y = o(x) * conv(i(x) * x', t(x) * l(x) * W(x))        every factor 2 sigmoid(.) of a head that starts at zero

a, i, o and t, for bands, channels and taps, are the heads of one trunk on the input's means: fc1, a norm, s relu(.)^2 +
b. No W_g is stored: they are W's, whatever W is at that moment. `local` adds l, one factor a weight, by a 1-d
convolution along the means. `input_bands` weights the input's octaves, each at each position (octaves.py), at 2-d
kernels of more than one tap, as published.

Source: Chen et al., FDConv, CVPR 2025 (arXiv 2503.18783). Its trunk's batch norm is a layer norm here, so that one
image trains. Its converter is not exact and its inverse transform fits even widths only; this is W at every shape.
Cost, for c channels in, k out, t taps, P parameters, h = max(c / reduction, 16): c h + 2 h + 2 + (h + 1) (c + k + t +
bands) parameters; `bands` P multiply-adds an image, and a kernel for each image in memory. `local`: r k t + 2 c more,
and r P multiply-adds, r being about log2(c) / 2. `input_bands`: 3 (9 c + 1) more, and three times two products over the
whole input, which cost as much again as the layers of a small net. W is transformed once a batch.
For detection and segmentation, says the paper. Loses in speed to gates on channels, with both switches by far.
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
from .bands import bands_of, frequencies, split
from .heads import hidden_channels, linear, require_counts, silent
from .modulation import Modulation, pooled
from .octaves import OCTAVES, InputBands, zero
from .router import Router
from .routing import Routing
from .standing import can_mix


@dataclass(frozen=True)
class Frequency(Routing):
    """`bands` of the kernel's spectrum; `reduction`, input channels over hidden ones; the switches are said above."""

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
        """How many input channels, output channels, taps and bands have a factor of their own."""
        taps = layer.taps if layer.taps > 1 else 0
        return layer.input_channels, layer.out_channels, taps, min(self.bands, frequencies(layer.shape))

    def has_octaves(self, layer: Layer) -> bool:
        return self.input_bands and len(layer.shape) == 4 and layer.taps > 1


class FrequencyRouter(Router):
    """Factors for a layer's bands, channels and taps; with `local` for its weights, with octaves for its input."""

    bins: Tensor
    fixed: Tensor | None = None

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

    def fix(self, weight: Tensor) -> None:
        """No Fourier transform in a graph, where each takes hundreds of nodes."""
        self.fixed = split(weight, self.bins, self.sizes[3])

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        means = pooled(x, self.spatial)
        hidden = self.scale * F.relu(self.norm(self.fc1(means))).square() + self.offset
        ins, outs, taps, mix = (2 * torch.sigmoid(self.heads(hidden))).split(self.sizes, dim=1)
        kernels = split(weight, self.bins, self.sizes[3]) if self.fixed is None else self.fixed
        said = Modulation(
            x=None if self.octaves is None else self.octaves(x),
            inputs=ins,
            outputs=outs,
            taps=taps.view(-1, *self.taps) if taps.shape[1] else None,
            mix=mix,
            kernels=kernels,
        )
        if self.local is None:
            return said
        kernel = self.local(means) * said.kernel_of(weight)
        return Modulation(x=said.x, inputs=ins, outputs=outs, kernel=kernel)

    def is_identity(self) -> bool:
        parts = [self.heads, *(part.conv for part in (self.local, self.octaves) if part is not None)]
        return silent(*parts)


class Local(nn.Module):
    """A factor for every weight, from the means of the input channels around its own."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm = nn.LayerNorm(channels)
        width = reach(channels)
        self.conv = zero(nn.Conv1d, 1, shape[0] * product(shape[2:]), width, padding=width // 2, bias=False)

    def forward(self, means: Tensor) -> Tensor:
        """(batch, channels) means to (batch, out, in, *taps) factors."""
        factors = 2 * torch.sigmoid(self.conv(self.norm(means)[:, None]))
        outs, ins, *taps = self.shape
        return factors.view(-1, outs, product(tuple(taps)), ins).transpose(2, 3).reshape(-1, outs, ins, *taps)


def reach(channels: int) -> int:
    """How many neighbouring channels' means a local factor sees: an odd number near log2(channels) / 2."""
    return round(log2(channels) / 2 + 0.5) // 2 * 2 + 1
