"""What routers are on average over images: one kernel for each layer, that of no image but their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.errors import NumericsError
from ..core.specs import Route
from .modulation import Modulation, per_group, whole_kernels


@dataclass(frozen=True)
class Mean:
    """A layer's mean kernel (out, in / groups, *kernel size) and the mean factor (out,) on its bias."""

    kernel: Tensor
    bias: Tensor


def mean_kernels(model: nn.Module, routes: Sequence[Route], batches: Iterable[Tensor]) -> dict[str, Mean]:
    """The mean over images of each routed layer's kernel, by the layer's name; the model stays as it is.

    The kernel of an image has the gates on its input and output channels in it; an input that is transformed counts by
    its projection, channel by channel, on the input that it replaces. Where a route has a module without a weight (an
    activation), what it scales each channel by is in the kernel of the next layer. Raises NumericsError KD702 for a
    layer whose mean is not finite.
    """
    found = {name: _Sum() for route in routes for name in route.members}
    handles = [handle for name, tally in found.items() for handle in _watched(model.get_submodule(name), tally)]
    try:
        with torch.no_grad():
            for inputs in batches:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    sick = [name for name, tally in found.items() if not all(part.isfinite().all() for part in tally.parts)]
    if sick:
        raise NumericsError("KD702", f"{sick[0]}: its routing gave no finite mean on these images")
    return {name: mean for route in routes for name, mean in _of_route(model, route, found)}


class _Sum:
    """Over the images so far: the kernels and the factors on the bias; or, of a module without a weight, of every
    channel <plain, routed> and <plain, plain>."""

    def __init__(self) -> None:
        self.images = 0
        self.parts: list[Tensor] = []

    def add(self, images: int, *parts: Tensor) -> None:
        self.images += images
        self.parts = [a + b for a, b in zip(self.parts, parts, strict=True)] if self.parts else list(parts)


def _watched(layer: Any, tally: _Sum) -> list[RemovableHandle]:
    """Hooks that see what the router says as the net runs: to ask it a second time would be another pass."""
    if _has_weight(layer):
        groups = getattr(layer, "groups", 1)
        return [layer.gate.register_forward_hook(partial(_tally_kernels, tally, groups))]
    plain: list[Tensor] = []  # worked out before, since an activation may write over its input
    before = layer.register_forward_pre_hook(lambda layer, args: plain.append(_static(layer, args[0].clone())))
    return [before, layer.register_forward_hook(lambda layer, args, routed: _tally_scales(tally, plain.pop(), routed))]


def _static(layer: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = type(layer).forward(layer, x)
    return output


def _tally_kernels(
    tally: _Sum, groups: int, router: nn.Module, args: tuple[Tensor, Tensor], modulation: Modulation
) -> None:
    x, weight = args
    parts = whole_kernels(modulation, x, weight, groups)
    tally.add(len(x), *(part.double().sum(0) * (len(x) // len(part)) for part in parts))  # of each image, or of all


def _tally_scales(tally: _Sum, plain: Tensor, routed: Tensor) -> None:
    axes = (0, *range(2, plain.ndim))
    tally.add(len(plain), (plain.double() * routed.double()).sum(axes), plain.double().square().sum(axes))


def _of_route(model: nn.Module, route: Route, found: dict[str, _Sum]) -> list[tuple[str, Mean]]:
    means, scale = [], None
    for name in route.members:
        layer: Any = model.get_submodule(name)
        one, two = found[name].parts
        if not _has_weight(layer):
            scale = torch.where(two > 0, one / two.clamp_min(1e-30), 1.0)
            continue
        kernel, factor = one / found[name].images, two / found[name].images
        if scale is not None:
            kernel, scale = kernel * per_group(scale[None], kernel.shape, layer.groups)[0], None
        means.append((name, Mean(kernel, factor)))
    return means


def _has_weight(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "weight", None), Tensor)
