"""DY-Conv: every image has its own mixture of K kernels, by a softmax.

    W(x) = sum_k p_k(x) W_k,   p = softmax(fc2(relu(fc1(mean of x over positions))) / T),   W_k = W + d_k

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020 (arXiv 1912.03458; K = 4, T
falls from 30 to 1).
Cost: K kernels instead of one and c h + (h + 1) K parameters of the attention for c input channels, h = c / reduction.
To mix, K times the kernel's size in multiply-adds per image, in addition to one convolution. Exact at the start: fc2 is
zero, and the d_k sum to zero (experts.py).
For small nets that can have more parameters but not more multiply-adds. Loses if the file size matters, and on a CPU,
where the kernel of each image is a group of its own: 0.7 of the dense net's speed on a ResNet-20 at batch 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.specs import Layer
from .experts import TOO_FEW, Experts, Owner, attach_experts, create_experts, expert_groups, require_owner, term_weights
from .heads import all_zero, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_mix
from .temperature import START, TemperedRouter, require_temperature


@dataclass(frozen=True)
class DyConv(Routing):
    """Options: `kernels`, K; `reduction`, input channels over hidden ones; `temperature`, T; `experts`, whether each
    layer has its own or layers of one shape share them."""

    name: ClassVar[str] = "dyconv"
    ungrouped: ClassVar[str] = TOO_FEW
    kernels: int = 4
    reduction: int = 4
    temperature: float = START
    experts: Owner = "own"

    def __post_init__(self) -> None:
        require_counts(self.name, kernels=(self.kernels, 2), reduction=(self.reduction, 1))
        require_temperature(self.name, self.temperature)
        require_owner(self.name, self.experts)

    def can_route(self, layer: Layer) -> str | None:
        return can_mix(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        return expert_groups(self.kernels, self.experts, layers)

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        experts = create_experts(self.kernels, self.experts, layers, weights, seeds)
        each = zip(layers, seeds, experts, strict=True)
        return [DyConvRouter(self, layer, seed, *held) for layer, seed, held in each]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        channels, hidden = self.sizes(layer)
        return hidden * (channels + self.kernels) + self.kernels * layer.params

    def sizes(self, layer: Layer) -> tuple[int, int]:
        """The numbers of input channels and of hidden channels."""
        channels = layer.input_channels
        return channels, max(1, channels // self.reduction)


class DyConvRouter(TemperedRouter):
    """A convex mixture of the layer's experts with weights from the input's mean over positions."""

    experts: Experts

    def __init__(self, routing: DyConv, layer: Layer, seed: int, experts: Experts, owned: bool) -> None:
        super().__init__(len(layer.shape) - 2, routing.temperature)
        channels, hidden = routing.sizes(layer)
        self.fc1 = linear(channels, hidden, seed, bias=False)
        self.fc2 = linear(hidden, routing.kernels, None)
        attach_experts(self, experts, owned)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        logits = self.fc2(F.relu(self.fc1(pooled(x, self.spatial))))
        mix = torch.softmax(logits / self.temperature, 1)
        return Modulation(mix=term_weights(torch.ones_like(mix[:, :1]), mix), kernels=self.experts.terms(weight))

    def is_identity(self) -> bool:
        return all_zero(self.fc2)
