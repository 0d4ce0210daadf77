"""What routers are on average over images: one kernel for each layer, that of no image but their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import NumericsError
from ..specs import Route
from .modulation import per_group
from .router import Router


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
    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(_tally, tally)) for name, tally in found.items()
    ]
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


def _tally(tally: _Sum, layer: Any, args: tuple[Tensor, ...]) -> None:
    router, x = cast("Router", layer.gate), args[0]
    if _has_weight(layer):
        parts = router.kernels(layer, x)
        tally.add(len(x), *(part.double().sum(0) * (len(x) // len(part)) for part in parts))  # of each image, or of all
    else:
        static = partial(type(layer).forward, layer)
        plain, routed = static(x).double(), router.route(layer, static, x).double()
        axes = (0, *range(2, x.ndim))
        tally.add(len(x), (plain * routed).sum(axes), plain.square().sum(axes))


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
            kernel, scale = kernel * per_group(scale[None], kernel, layer.groups)[0], None
        means.append((name, Mean(kernel, factor)))
    return means


def _has_weight(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "weight", None), Tensor)
