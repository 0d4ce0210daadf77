"""Layers of every kind that a routing takes, routed two at a time, and the cases of the laws over all routings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from kdna_convert.core.specs import Layer
from kdna_convert.routing import ROUTINGS, attach, detach, routers


class Twice(nn.Module):
    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(x), self.two(x)], -1)


class Inverted(nn.Module):
    """A block of the form that routings of whole blocks look for; without expansion where `expand` is false."""

    def __init__(self, act: type[nn.Module], stride: int, expand: bool) -> None:
        super().__init__()
        inside = 12 if expand else 8
        self.expand = nn.Conv2d(8, inside, 1) if expand else nn.Identity()
        self.inner = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside)
        self.act = act()
        self.project = nn.Conv2d(inside, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.inner(self.expand(x))))


LAYERS = {
    "conv1d": (lambda: nn.Conv1d(8, 4, 3), (8, 9)),
    "conv2d": (lambda: nn.Conv2d(8, 4, 3, padding=1), (8, 9, 7)),
    "strided": (lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), (8, 9, 8)),
    "reflecting": (lambda: nn.Conv2d(8, 8, 3, padding="same", dilation=2, padding_mode="reflect"), (8, 9, 7)),
    "pointwise": (lambda: nn.Conv2d(8, 12, 1), (8, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(8, 4, 3), (8, 5, 4, 6)),
    "grouped": (lambda: nn.Conv2d(8, 4, 3, groups=4), (8, 9, 7)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1), (8, 9, 7)),
    "linear": (lambda: nn.Linear(8, 4), (8,)),
    "tokens": (lambda: nn.Linear(8, 4), (5, 8)),
    "channels last": (lambda: nn.Linear(8, 4), (6, 5, 8)),
    "inverted": (lambda: Inverted(nn.ReLU, 1, True), (8, 9, 7)),
    "separable": (lambda: Inverted(nn.Hardswish, 2, False), (8, 9, 8)),
}


# Routings with other options than their defaults, and the layers at which they obey the laws too.
VARIANTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "warehouse of 2": (ROUTINGS["warehouse"](budget=2), ("conv1d", "strided", "pointwise", "depthwise")),
    "warehouse of 4": (ROUTINGS["warehouse"](budget=4, reduction=1), ("conv2d",)),
    "local frequency": (ROUTINGS["frequency"](local=True), ("conv1d", "conv2d", "strided", "pointwise", "conv3d")),
    "frequency and octaves": (ROUTINGS["frequency"](input_bands=True), ("conv2d", "strided", "reflecting")),
    "partial omni": (ROUTINGS["partial"](of={"name": "omni"}), ("conv2d",)),
    "partial omni of 3": (ROUTINGS["partial"](of={"name": "omni", "kernels": 3}), ("conv2d",)),
    "partial cond of 3": (ROUTINGS["partial"](of={"name": "cond", "kernels": 3}), ("conv2d",)),
    "partial dyconv of 3": (ROUTINGS["partial"](of={"name": "dyconv", "kernels": 3}), ("conv2d",)),
    "shared omni of 2": (ROUTINGS["omni"](kernels=2, experts="shared"), ("conv2d",)),
    "shared cond of 2": (ROUTINGS["cond"](kernels=2, experts="shared"), ("conv2d",)),
    "shared dyconv of 2": (ROUTINGS["dyconv"](kernels=2, experts="shared"), ("conv2d",)),
}


def described(name: str, layer: Any, reason: str | None = None) -> Layer:
    """A layer as the survey lists it, without its positions."""
    shape = tuple(layer.weight.shape)
    return Layer(name, type(layer).__name__, shape, getattr(layer, "groups", 1), reason=reason)


def groups(routing: Any, net: nn.Module) -> list[tuple[Layer, ...]]:
    """The groups of layers of a net that the routing can be placed at."""
    weighted = [(name, module) for name, module in net.named_modules() if isinstance(module, (_ConvNd, nn.Linear))]
    layers = [described(name, module) for name, module in weighted]
    return routing.groups([layer for layer in layers if routing.can_route(layer) is None], net)


def takes(routing: Any, make: Callable[[], nn.Module]) -> bool:
    """Whether a routing can be placed at two layers like these side by side."""
    return bool(groups(routing, nn.Sequential(Twice(make(), make()))))


def cases() -> Iterator[Any]:
    for name, kind in ROUTINGS.items():
        for what, (make, _) in LAYERS.items():
            if takes(kind(), make):
                yield pytest.param(kind(), what, id=f"{name}-{what}")
    for name, (routing, kinds) in VARIANTS.items():
        yield from (pytest.param(routing, what, id=f"{name}-{what}") for what in kinds)


routings = pytest.mark.parametrize("routing", [kind() for kind in ROUTINGS.values()], ids=list(ROUTINGS))
CASES = list(cases())
placed = pytest.mark.parametrize(("routing", "kind"), CASES)


def placed_at(*kinds: str) -> pytest.MarkDecorator:
    """The cases of these kinds of layers."""
    return pytest.mark.parametrize(("routing", "kind"), [case for case in CASES if case.values[1] in kinds])


def routed(kind: str, routing: Any, batch: int = 3, seed: int = 0) -> tuple[nn.Sequential, Tensor]:
    """A net of two routed layers of a kind side by side, and an input."""
    make, size = LAYERS[kind]
    torch.manual_seed(0)
    net = nn.Sequential(Twice(make(), make()))
    for group in groups(routing, net):
        attach(net, group, routing, seed)
    return net, torch.randn(batch, *size)


def learned(net: nn.Sequential) -> nn.Sequential:
    """The net, with its routers moved away from the identity in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for router in routers(net).values():
            for parameter in router.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def static(net: nn.Sequential) -> nn.Sequential:
    bare = copy.deepcopy(net)
    for name in routers(bare):
        detach(bare.get_submodule(name))
    return bare
