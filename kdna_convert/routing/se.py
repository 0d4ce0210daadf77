"""se: KernelDNA's input-dependent routing, a squeeze-and-excitation gate on a layer's input channels.

    x <- x * 2 sigmoid(fc2(relu(norm(fc1(mean of x over positions)))))

Source: KernelDNA's input gate (arXiv 2503.23379); Hu et al., Squeeze-and-Excitation Networks, CVPR 2018 (arXiv
1709.01507). The release normalizes the hidden channels over the batch. Here the optional norm is over the hidden
channels of each image, so that a batch of one trains and no image depends on another.
Cost: 2 c h + c parameters (and 2 h of the norm) for c input channels and h hidden ones, h = c / reduction or `width`,
and one pass over the input.
Loses if the layer must be merged into an ordinary weight: a trained gate cannot be folded, only frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer
from .heads import all_zero, apply_linear, gate, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_gate


@dataclass(frozen=True)
class Se(Routing):
    """Options: `reduction`, input channels over hidden ones; `width`, the number of hidden channels instead; `norm`,
    which normalizes the hidden channels of each image.

    The norm is for gates that are trained from scratch. It needs at least two hidden channels.
    """

    name: ClassVar[str] = "se"
    reduction: int = 4
    width: int | None = None
    norm: bool = False

    def __post_init__(self) -> None:
        require_counts(self.name, reduction=(self.reduction, 1), width=(self.width, 1))
        if self.norm and self.width == 1:
            raise RecipeError("KD203", "routing se: width must be at least 2 with norm, got 1")

    def can_route(self, layer: Layer) -> str | None:
        return can_gate(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        return [(layer,) for layer in layers]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        return [
            SeRouter(*self._sizes(layer), len(layer.shape) - 2, seed, self.norm)
            for layer, seed in zip(layers, seeds, strict=True)
        ]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(2 * channels * hidden for channels, hidden in map(self._sizes, layers))

    def _sizes(self, layer: Layer) -> tuple[int, int]:
        channels = layer.shape[1] * layer.groups
        return channels, self.width or max(2 if self.norm else 1, channels // self.reduction)


class SeRouter(Router):
    """One factor for each input channel, from the input's mean over positions."""

    def __init__(self, channels: int, hidden: int, spatial: int, seed: int, norm: bool = False) -> None:
        super().__init__(spatial)
        self.fc1 = linear(channels, hidden, seed, bias=False)
        self.norm = nn.LayerNorm(hidden, device="cpu") if norm else None
        self.fc2 = linear(hidden, channels, None)

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        hidden = apply_linear(self.fc1, pooled(x, self.spatial))
        hidden = F.relu(hidden if self.norm is None else self.norm(hidden))
        return Modulation(inputs=gate(apply_linear(self.fc2, hidden)))

    def is_identity(self) -> bool:
        return all_zero(self.fc2)
