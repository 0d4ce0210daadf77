"""ODConv: four attentions from one pooled input: on input channels, filters, taps and K kernels.

    y = f(x) * conv(c(x) * x, s(x) * sum_k p_k(x) W_k)
    c, f, s = 2 sigmoid(heads(h) / T),   p = softmax(head(h) / T),   h = relu(fc(mean of x over positions))

Source: Li, Zhou and Yao, Omni-Dimensional Dynamic Convolution, ICLR 2022 (arXiv 2209.07947). Without its batch norm,
through which a single image cannot be trained, and with 2 sigmoid, which starts at one, instead of sigmoid.
Cost: K kernels instead of one (experts.py) and c h + (h + 1)(c + o + taps + K) parameters for c input and o output
channels, h = max(c / reduction, 16). A depthwise layer has no attention on filters, a 1x1 layer none on taps, K = 1
none on kernels. Exact at the start: the heads are zero.
For any layer that can take a few per cent more parameters. The most general attention, and the most expensive.

K = 1 without taps keeps the kernel and scales activations twice. Every other setting gives each image a kernel of its
own. On a ResNet-20 at batch 32 on two cores, the two scales leave 0.9 of the dense net's speed, K = 4 with taps 0.6.
So K = 1 has no taps by default. Loses if speed matters: scaling an input copies it.
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
from .experts import TOO_FEW, Experts, Owner, attach_experts, create_experts, expert_groups, require_owner, term_weights
from .heads import all_zero, apply_linear, gate, hidden_channels, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_gate, can_mix
from .temperature import START, TemperedRouter, require_temperature


@dataclass(frozen=True)
class Omni(Routing):
    """Options: `kernels`, K; `reduction`, input channels over hidden ones; `spatial`, whether taps have an attention,
    by default if K > 1; `temperature`, T; `experts`, whether each layer has its own or layers of one shape share
    them."""

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
        """The size of each attention: input channels, filters, taps, kernels. 0 if the layer has no such attention."""
        depthwise = layer.groups > 1 and layer.in_channels == 1
        spatial = self.kernels > 1 if self.spatial is None else self.spatial
        return (
            layer.input_channels,
            0 if depthwise else layer.out_channels,
            layer.taps if spatial and layer.taps > 1 else 0,
            self.kernels if self.kernels > 1 else 0,
        )


class OmniRouter(TemperedRouter):
    """Up to four attentions from the input's mean over positions."""

    experts: Experts

    def __init__(self, routing: Omni, layer: Layer, seed: int, held: tuple[Experts, bool] | None = None) -> None:
        super().__init__(len(layer.shape) - 2, routing.temperature)
        self.sizes, self.kernel_size = routing.heads(layer), layer.shape[2:]
        channels, hidden = layer.input_channels, hidden_channels(layer, routing.reduction)
        self.trunk = linear(channels, hidden, seed, bias=False)
        self.heads = linear(hidden, sum(self.sizes), None)
        if held is not None:
            attach_experts(self, *held)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        logits = apply_linear(self.heads, F.relu(apply_linear(self.trunk, pooled(x, self.spatial)))) / self.temperature
        mix = torch.softmax(logits[:, -self.sizes[3] :], 1) if self.sizes[3] else None
        inputs, outputs, taps, _ = gate(logits).split_with_sizes(self.sizes, 1)
        return Modulation(
            inputs=inputs,
            outputs=outputs if self.sizes[1] else None,
            taps=taps.unflatten(1, self.kernel_size) if self.sizes[2] else None,
            mix=None if mix is None else term_weights(torch.ones_like(mix[:, :1]), mix),
            kernels=None if mix is None else self.experts.terms(weight),
        )

    def is_identity(self) -> bool:
        return all_zero(self.heads)
