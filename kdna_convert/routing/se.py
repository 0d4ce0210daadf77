"""se: KernelDNA's input-dependent routing, a squeeze-and-excitation gate on a layer's input channels.

    x <- x * 2 sigmoid(fc2(relu(fc1(mean of x over positions))))

Source: KernelDNA (input gate); Hu et al., Squeeze-and-Excitation Networks, 2018. Cost: 2 c h + c parameters for c input
channels and h hidden ones, h = c / reduction or `width`, and one pass over the input. Loses when the layer must be
merged into an ordinary weight: a gate that has learned something cannot be folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from ..specs import Layer, Shape

# Layers whose forward pass, as far as the survey saw, takes no input that a gate could multiply.
_UNREACHABLE = frozenset({"KD104", "KD107", "KD111", "KD112"})


@dataclass(frozen=True)
class Se:
    """`width` is the number of hidden channels; left out, it is the input channels over `reduction`, at least one."""

    name: ClassVar[str] = "se"
    reduction: int = 4
    width: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("reduction", self.reduction), ("width", self.width)):
            if value is not None and value < 1:
                raise RecipeError("KD203", f"routing se: {option} must be at least 1, got {value}")

    def can_route(self, layer: Layer) -> str | None:
        return "KD113" if layer.reason in _UNREACHABLE else None

    def tensors(self, shape: Shape, groups: int) -> dict[str, Shape]:
        channels, hidden = self._sizes(shape, groups)
        return {"fc1.weight": (hidden, channels), "fc2.weight": (channels, hidden), "fc2.bias": (channels,)}

    def macs(self, shape: Shape, groups: int) -> int:
        channels, hidden = self._sizes(shape, groups)
        return 2 * channels * hidden

    def build(self, shape: Shape, groups: int, seed: int) -> SeGate:
        channels, hidden = self._sizes(shape, groups)
        return SeGate(channels, hidden, len(shape) - 2, seed)

    def _sizes(self, shape: Shape, groups: int) -> tuple[int, int]:
        channels = shape[1] * groups
        return channels, self.width or max(1, channels // self.reduction)


class SeGate(nn.Module):
    """Maps an input to the gated input, of the same shape, dtype and memory format.

    `spatial` is the number of position axes after the channel axis (1, 2 or 3 for a conv); 0 means a linear layer,
    whose channels come last and whose positions are whatever lies between them and the batch.
    """

    def __init__(self, channels: int, hidden: int, spatial: int, seed: int) -> None:
        super().__init__()
        self.spatial = spatial
        with torch.device("meta"):  # draws nothing from the global random state
            self.fc1, self.fc2 = nn.Linear(channels, hidden, bias=False), nn.Linear(hidden, channels)
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(self.fc1.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.spatial:
            scale = self._scale(x.mean(tuple(range(-self.spatial, 0))))
            return x * scale.reshape(*scale.shape, *[1] * self.spatial)
        return x * self._scale(x.mean(tuple(range(1, x.ndim - 1)), keepdim=True) if x.ndim > 2 else x)

    def _scale(self, pooled: Tensor) -> Tensor:
        scale: Tensor = 2 * torch.sigmoid(self.fc2(F.relu(self.fc1(pooled))))
        return scale.to(pooled.dtype)

    def is_identity(self) -> bool:
        """True while the gate multiplies every input by exactly one."""
        return not self.fc2.weight.any() and not self.fc2.bias.any()
