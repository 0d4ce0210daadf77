"""The mean of a routed layer's kernels over images: one static kernel for each layer."""

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
class MeanKernel:
    """A layer's mean kernel (out, in / groups, *kernel size) and the mean factor (out,) of its bias."""

    kernel: Tensor
    bias: Tensor


def mean_kernels(model: nn.Module, routes: Sequence[Route], batches: Iterable[Tensor]) -> dict[str, MeanKernel]:
    """The mean over images of each routed layer's kernel. The model does not change.

    The kernel of an image includes the factors of its input and output channels. An input that a router transforms
    counts by its projection, channel by channel, on the input that it replaces. If a route contains a module without a
    weight (an activation), its factor of each channel goes into the kernel of the next layer.

    Args:
        model: The routed net, in eval mode.
        routes: Its routes.
        batches: Batches of images.

    Returns:
        The means by the layers' names.

    Raises:
        NumericsError: KD702 for a layer whose mean is not finite.
    """
    tallies = {name: _Tally() for route in routes for name in route.members}
    handles = [handle for name, tally in tallies.items() for handle in _hooks(model.get_submodule(name), tally)]
    try:
        with torch.no_grad():
            for inputs in batches:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    sick = [name for name, tally in tallies.items() if not all(part.isfinite().all() for part in tally.parts)]
    if sick:
        raise NumericsError("KD702", f"{sick[0]}: its routing gave no finite mean on these images")
    return {name: mean for route in routes for name, mean in _means_of_route(model, route, tallies)}


class _Tally:
    """Sums over the images so far.

    The `parts` of a layer are the sum of its kernels and that of the factors of its bias. Those of a module without a
    weight are, for every channel, <plain, routed> and <plain, plain>.
    """

    def __init__(self) -> None:
        self.images = 0
        self.parts: list[Tensor] = []

    def add(self, images: int, *parts: Tensor) -> None:
        self.images += images
        self.parts = [a + b for a, b in zip(self.parts, parts, strict=True)] if self.parts else list(parts)


def _hooks(layer: Any, tally: _Tally) -> list[RemovableHandle]:
    """Hooks that tally a router's output as the net runs. Asking the router again would take a second pass."""
    if _has_weight(layer):
        groups = getattr(layer, "groups", 1)
        return [layer.gate.register_forward_hook(partial(_tally_kernels, tally, groups))]
    plain: list[Tensor] = []  # computed before the layer runs, since an activation may overwrite its input
    before = layer.register_forward_pre_hook(lambda layer, args: plain.append(_static(layer, args[0].clone())))
    return [before, layer.register_forward_hook(lambda layer, args, routed: _tally_factors(tally, plain.pop(), routed))]


def _static(layer: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = type(layer).forward(layer, x)
    return output


def _tally_kernels(
    tally: _Tally, groups: int, router: nn.Module, args: tuple[Tensor, Tensor], modulation: Modulation
) -> None:
    x, weight = args
    parts = whole_kernels(modulation, x, weight, groups)
    tally.add(len(x), *(part.double().sum(0) * (len(x) // len(part)) for part in parts))  # of each image, or of all


def _tally_factors(tally: _Tally, plain: Tensor, routed: Tensor) -> None:
    axes = (0, *range(2, plain.ndim))
    tally.add(len(plain), (plain.double() * routed.double()).sum(axes), plain.double().square().sum(axes))


def _means_of_route(model: nn.Module, route: Route, tallies: dict[str, _Tally]) -> list[tuple[str, MeanKernel]]:
    means, scale = [], None
    for name in route.members:
        layer: Any = model.get_submodule(name)
        first, second = tallies[name].parts
        if not _has_weight(layer):
            scale = torch.where(second > 0, first / second.clamp_min(1e-30), 1.0)
            continue
        kernel, factor = first / tallies[name].images, second / tallies[name].images
        if scale is not None:
            kernel, scale = kernel * per_group(scale[None], kernel.shape, layer.groups)[0], None
        means.append((name, MeanKernel(kernel, factor)))
    return means


def _has_weight(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "weight", None), Tensor)
