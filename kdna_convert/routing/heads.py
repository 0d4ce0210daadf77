"""What routers look and speak with: small linear layers, from the mean of an input to numbers that start at nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer

_NARROWEST = 16


def linear(inputs: int, outputs: int, seed: int | None, *, bias: bool = True) -> nn.Linear:
    """A linear layer that draws Kaiming numbers from `seed`, or is zero without one: a head that starts at nothing."""
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


def through(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the layer says of x, without the call of a module, which gates on small images notice."""
    return F.linear(x, layer.weight, layer.bias)


def factors(z: Tensor) -> Tensor:
    """2 sigmoid(z): one where a head says nothing. In place of z without gradients, as gates on small images notice."""
    if torch.is_grad_enabled():
        return 2 * torch.sigmoid(z)
    z = z.sigmoid_()
    return z.add_(z)  # half the time of a product with a number


def silent(*heads: nn.Module) -> bool:
    """Whether these say nothing yet, whatever the input."""
    return not any(bool(p.any()) for head in heads for p in head.parameters())


def hidden_channels(layer: Layer, reduction: int) -> int:
    """Input channels over `reduction`, at least 16: the width that most of the systems give their attention."""
    return max(layer.input_channels // reduction, _NARROWEST)


def require_counts(name: str, **counts: tuple[int | None, int]) -> None:
    """Raises RecipeError KD203 for the first of `option=(value, least)` that lies below its least."""
    for option, (value, least) in counts.items():
        if value is not None and value < least:
            raise RecipeError("KD203", f"routing {name}: {option} must be at least {least}, got {value}")
