"""The small layers that routers are built from: pooling, linear layers that start at zero, gates around one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer

_NARROWEST = 16
_POSITIONS = {1: (-1,), 2: (-2, -1), 3: (-3, -2, -1)}  # the axes of positions


def linear(inputs: int, outputs: int, seed: int | None, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Kaiming weights drawn from `seed`, or with zeros if `seed` is None: a head starts at zero."""
    with torch.device("meta"):  # draws nothing from the global random state
        layer = nn.Linear(inputs, outputs, bias=bias)
    layer.to_empty(device="cpu")
    if seed is None:
        nn.init.zeros_(layer.weight)
    else:
        generator = torch.Generator().manual_seed(seed)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def zero_layer(kind: Callable[..., nn.Module], *sizes: int, **options: Any) -> nn.Module:
    """A layer of this class with zeros everywhere. The global random state is not used."""
    layer: nn.Module = nn.utils.skip_init(kind, *sizes, **options)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def pooled(x: Tensor, spatial: int) -> Tensor:
    """The mean of a conv's input over positions, or of a linear layer's over tokens: (batch, channels)."""
    if spatial:
        return x.mean(_POSITIONS[spatial])
    return x.mean(tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x


def apply_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)` without the overhead of a module call, which is noticeable for gates on small images."""
    return F.linear(x, layer.weight, layer.bias)


def gate(z: Tensor) -> Tensor:
    """2 sigmoid(z): one for a head of zeros. Without gradients `z` is overwritten, which saves time on small images."""
    if torch.is_grad_enabled():
        return 2 * torch.sigmoid(z)
    z = z.sigmoid_()
    return z.add_(z)  # half the time of a product with a number


def all_zero(*heads: nn.Module) -> bool:
    """Whether every parameter of these heads is zero, so that their output does not depend on the input."""
    return not any(bool(p.any()) for head in heads for p in head.parameters())


def hidden_channels(layer: Layer, reduction: int) -> int:
    """Input channels over `reduction`, at least 16: the width of the attention in most of the published systems."""
    return max(layer.input_channels // reduction, _NARROWEST)


def require_counts(name: str, **counts: tuple[int | None, int]) -> None:
    """Check that each `option=(value, least)` is None or at least `least`. Raises RecipeError KD203 for the first."""
    for option, (value, least) in counts.items():
        if value is not None and value < least:
            raise RecipeError("KD203", f"routing {name}: {option} must be at least {least}, got {value}")
