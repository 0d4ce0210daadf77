"""ODConv: four attentions from one look at the input: on input channels, filters, taps and K kernels.

    y = f(x) * conv(c(x) * x, s(x) * sum_k p_k(x) W_k)
    c, f, s = 2 sigmoid(heads(h) / T),   p = softmax(head(h) / T),   h = relu(fc(mean of x over positions))

Source: Li, Zhou and Yao, Omni-Dimensional Dynamic Convolution, 2022; without its batch norm, which no single image can
be trained through, and with 2 sigmoid for sigmoid, which starts at one. Cost: K kernels instead of one (experts.py) and
c h + (h + 1)(c + o + taps + K) parameters for c input and o output channels, h = max(c / reduction, 16). There is no
attention on filters at a depthwise layer, on taps at a 1x1, on kernels at K = 1. Exact at the start: its heads are
zero. For any layer that may take a few per cent more parameters; the most general of the attentions, and the dearest.

K = 1 without taps leaves the kernel alone: two scales on activations. Everything else gives every image a kernel of its
own. On a ResNet-20 at batch 32, on two cores, the scales alone leave 0.9 of the dense net's speed, K = 4 with taps 0.6:
so K = 1 has no taps unless asked. Loses where speed matters: to scale an input is to copy it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer
from .experts import TOO_FEW, Experts, Owner, create_experts, expert_groups, hold, require_owner, weights
from .heads import factors, hidden_channels, linear, require_counts, silent, through
from .modulation import Modulation, pooled
from .router import Router
from .routing import Routing
from .standing import can_gate, can_mix
from .temperature import START, Tempered, require_temperature


@dataclass(frozen=True)
class Omni(Routing):
    """`kernels` is K. `spatial`, whether taps have an attention, is by default whether K > 1. `experts` says whose the
    K kernels are: each layer's own, or shared by the layers of one shape."""

    name: ClassVar[str] = "omni"
    ungrouped: ClassVar[str] = TOO_FEW
    kernels: int = 1
    reduction: int = 16
    spatial: bool | None = None
    temperature: float = START
    experts: Owner = "own"

    def __post_init__(self) -> None:
        require_counts(self.name, kernels=(self.kernels, 1), reduction=(self.reduction, 1))
        require_temperature(self.name, self.temperature)
        require_owner(self.name, self.experts)
        if self.experts == "shared" and self.kernels == 1:
            raise RecipeError("KD203", f"routing {self.name}: experts: shared needs kernels above 1")

    def can_route(self, layer: Layer) -> str | None:
        *_, taps, kernels = self.heads(layer)
        return can_mix(layer) if taps or kernels else can_gate(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        return expert_groups(self.kernels, self.experts, layers)

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        each = zip(layers, seeds, strict=True)
        if self.kernels == 1:
            return [OmniRouter(self, layer, seed) for layer, seed in each]
        experts = create_experts(self.kernels, self.experts, layers, weights, seeds)
        return [OmniRouter(self, *one, held) for one, held in zip(each, experts, strict=True)]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        heads = self.heads(layer)
        *_, taps, kernels = heads
        attention = hidden_channels(layer, self.reduction) * (layer.input_channels + sum(heads))
        return attention + (kernels + bool(taps)) * layer.params

    def heads(self, layer: Layer) -> tuple[int, int, int, int]:
        """How many numbers each attention gives: input channels, filters, taps, kernels; 0 where it has no place."""
        depthwise = layer.groups > 1 and layer.in_channels == 1
        spatial = self.kernels > 1 if self.spatial is None else self.spatial
        return (
            layer.input_channels,
            0 if depthwise else layer.out_channels,
            layer.taps if spatial and layer.taps > 1 else 0,
            self.kernels if self.kernels > 1 else 0,
        )


class OmniRouter(Tempered):
    """Up to four attentions, from the input's mean over positions. `size` is the kernel's, (*taps)."""

    experts: Experts

    def __init__(self, routing: Omni, layer: Layer, seed: int, held: tuple[Experts, bool] | None = None) -> None:
        super().__init__(len(layer.shape) - 2, routing.temperature)
        self.sizes, self.size = routing.heads(layer), layer.shape[2:]
        channels, hidden = layer.input_channels, hidden_channels(layer, routing.reduction)
        self.trunk = linear(channels, hidden, seed, bias=False)
        self.heads = linear(hidden, sum(self.sizes), None)
        if held is not None:
            hold(self, *held)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        said = through(self.heads, F.relu(through(self.trunk, pooled(x, self.spatial)))) / self.temperature
        mix = torch.softmax(said[:, -self.sizes[3] :], 1) if self.sizes[3] else None
        inputs, outputs, taps, _ = factors(said).split_with_sizes(self.sizes, 1)
        return Modulation(
            inputs=inputs,
            outputs=outputs if self.sizes[1] else None,
            taps=taps.unflatten(1, self.size) if self.sizes[2] else None,
            mix=None if mix is None else weights(torch.ones_like(mix[:, :1]), mix),
            kernels=None if mix is None else self.experts.around(weight),
        )

    def is_identity(self) -> bool:
        return silent(self.heads)
