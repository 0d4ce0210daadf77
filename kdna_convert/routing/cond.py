"""CondConv: every image has its own sum of K kernels, each switched by a sigmoid.

    W(x) = sum_k r_k(x) W_k,   r = sigmoid(fc(mean of x over positions)),   W_k = 2 W / K + d_k

Source: Yang et al., CondConv: Conditionally Parameterized Convolutions, NeurIPS 2019 (arXiv 1904.04971; K = 8).
Cost: K kernels instead of one and (c + 1) K parameters of the routing for c input channels. To mix, K times the
kernel's size in multiply-adds per image, in addition to one convolution. Exact at the start: fc is zero, so that every
r is 1/2, and the d_k sum to zero (experts.py). Unlike dyconv's, its mixture can also scale the kernel.
For late layers of small nets, where the source uses it. Loses if the file size matters, and if all images need the same
kernel: nothing keeps the experts different. As fast as dyconv.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.specs import Layer
from .experts import TOO_FEW, Experts, Owner, attach_experts, create_experts, expert_groups, require_owner, term_weights
from .heads import all_zero, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_mix


@dataclass(frozen=True)
class Cond(Routing):
    """Options: `kernels`, K; `experts`, whether each layer has its own or layers of one shape share them."""

    name: ClassVar[str] = "cond"
    ungrouped: ClassVar[str] = TOO_FEW
    kernels: int = 8
    experts: Owner = "own"

    def __post_init__(self) -> None:
        require_counts(self.name, kernels=(self.kernels, 2))
        require_owner(self.name, self.experts)

    def can_route(self, layer: Layer) -> str | None:
        return can_mix(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        return expert_groups(self.kernels, self.experts, layers)

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        experts = create_experts(self.kernels, self.experts, layers, weights, seeds)
        return [CondRouter(layer, *held) for layer, held in zip(layers, experts, strict=True)]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        return self.kernels * (layer.input_channels + layer.params)


class CondRouter(Router):
    """A sum of the layer's experts with weights from the input's mean over positions."""

    experts: Experts

    def __init__(self, layer: Layer, experts: Experts, owned: bool) -> None:
        super().__init__(len(layer.shape) - 2)
        self.fc = linear(layer.input_channels, len(experts.deltas) + 1, None)
        attach_experts(self, experts, owned)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        switches = torch.sigmoid(self.fc(pooled(x, self.spatial)))
        total = 2 * switches.mean(1, keepdim=True)
        return Modulation(mix=term_weights(total, switches), kernels=self.experts.terms(weight))

    def is_identity(self) -> bool:
        return all_zero(self.fc)
