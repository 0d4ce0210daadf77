"""Layers that standardize their weight as they run: timm's StdConv2d and ScaledStdConv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.specs import Family, Layer
from ..core.standardize import Standardized, standardize, standardized_by_name

_KINDS = frozenset({"StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"})
# The bound of a layer with gains of its own, relative to the largest of them: room for kernels that a fit enlarges.
_HEADROOM = 2.0


def is_standardizing(module: nn.Module) -> bool:
    """Whether the layer standardizes its weight on every forward pass. A derived layer has its original's class too."""
    return bool({kind.__name__ for kind in type(module).__mro__} & _KINDS)


def standardized_of(module: Any) -> Standardized | None:
    """How the layer standardizes; None if it does not, or without the `eps` that makes every deviation possible.

    The bound of a layer without gains is 1, of others beyond their largest gain (`free_gains`).
    """
    if not is_standardizing(module) or not module.eps > 0:
        return None
    gain = getattr(module, "gain", None)
    if not isinstance(gain, Tensor):
        return Standardized(float(module.eps), 1.0)
    largest = float((gain.detach().double() * module.scale).abs().max())
    return Standardized(float(module.eps), _HEADROOM * (largest or float(module.scale)))


def free_gains(model: nn.Module, family: Family, layers: Sequence[Layer]) -> None:
    """Set the gains of a family's standardizing layers to the bounds in `layers`, in place, before it is derived.

    A gain is then no longer part of the kernel, which may have any deviation below the bound.
    """
    standardizers = standardized_by_name(layers)
    for name in standardizers.keys() & {*family.members}:
        module: Any = model.get_submodule(name)
        if isinstance(getattr(module, "gain", None), Tensor):
            with torch.no_grad():
                module.gain.fill_(standardizers[name].bound / module.scale)


def running_kernel(module: nn.Module) -> Tensor:
    """The kernel that the layer multiplies patches by, float64, (out, in / groups, *taps), detached.

    This is the weight, or what a standardizing layer makes of it.
    """
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{type(module).__name__} has no weight tensor")
    kernel = weight.detach().double()
    if not is_standardizing(module):
        return kernel
    gain = getattr(module, "gain", None)
    factor = gain.detach().double() * float(module.scale) if isinstance(gain, Tensor) else 1.0  # type: ignore[arg-type]
    return standardize(kernel, float(module.eps), factor)  # type: ignore[arg-type]
