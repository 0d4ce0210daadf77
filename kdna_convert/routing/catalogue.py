"""What each routing costs by its default options: the table that `kdna ls routing` prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import nn

from ..core.specs import Layer, Route
from .routing import Routing

_POSITIONS = 16 * 16
# The kinds of layers that a routing may support, of a width that most nets have.
_LAYERS = {
    "3x3": Layer("layer", "Conv2d", (64, 64, 3, 3), in_positions=_POSITIONS, out_positions=_POSITIONS),
    "1x1": Layer("layer", "Conv2d", (64, 64, 1, 1), in_positions=_POSITIONS, out_positions=_POSITIONS),
    "grouped": Layer("layer", "Conv2d", (64, 16, 3, 3), 4, in_positions=_POSITIONS, out_positions=_POSITIONS),
    "depthwise": Layer("layer", "Conv2d", (64, 1, 3, 3), 64, in_positions=_POSITIONS, out_positions=_POSITIONS),
    "conv1d": Layer("layer", "Conv1d", (64, 64, 3), in_positions=_POSITIONS, out_positions=_POSITIONS),
    "conv3d": Layer("layer", "Conv3d", (64, 64, 3, 3, 3), in_positions=_POSITIONS, out_positions=_POSITIONS),
    "linear": Layer("layer", "Linear", (64, 64), in_positions=1, out_positions=1),
}
_BLOCK = "inverted-residual block"


@dataclass(frozen=True)
class RoutingEntry:
    """One routing with its default options.

    Attributes:
        name: Its name in recipes.
        summary: The first line of its card.
        options: Its options and their defaults.
        takes: The kinds of layers that it supports.
        example: The layer or block that the costs are of.
        parameters_added: Parameters that it adds to the example.
        macs_added: Multiply-adds per image that it adds to the example.
    """

    name: str
    summary: str
    options: dict[str, Any]
    takes: tuple[str, ...]
    example: str
    parameters_added: int
    macs_added: int


def catalogue(routings: Mapping[str, type[Routing]]) -> list[RoutingEntry]:
    """Every routing with its defaults."""
    return [_entry(name, kind) for name, kind in routings.items()]


def _entry(name: str, kind: type[Routing]) -> RoutingEntry:
    routing = kind()
    takes = tuple(what for what, layer in _LAYERS.items() if routing.can_route(layer) is None)
    net: nn.Module = nn.ModuleDict({"layer": nn.Conv2d(64, 64, 3, padding=1)})
    groups, example = routing.groups([_LAYERS["3x3"]] if "3x3" in takes else [], net), "Conv2d 64x64x3x3, 16x16 pixels"
    if not groups:
        net, layers = _block()
        groups, takes = routing.groups(layers, net), (_BLOCK,)
        example = f"{_BLOCK}, 32 to 128 to 32 channels, 16x16 pixels"
    params = macs = 0
    for group in groups:
        members = Route(name, group).members
        weights = [getattr(net.get_submodule(member), "weight", None) for member in members]
        routers = routing.build(group, weights, [0] * len(group))
        params += sum(parameter.numel() for router in routers for parameter in router.parameters())
        macs += routing.macs(group)
    options = {
        option.name: option.default_factory() if option.default_factory is not MISSING else option.default
        for option in fields(kind)
    }
    card = (sys.modules[kind.__module__].__doc__ or "").strip().split("\n")[0]
    return RoutingEntry(name, card.removeprefix(f"{name}: "), options, takes, example, params, macs)


def _block() -> tuple[nn.Module, list[Layer]]:
    """A net of one inverted-residual block, and its convolutions as the survey describes them."""
    expand, depthwise = nn.Conv2d(32, 128, 1), nn.Conv2d(128, 128, 3, padding=1, groups=128)
    block = nn.Sequential(expand, nn.ReLU(), depthwise, nn.ReLU(), nn.Conv2d(128, 32, 1))
    layers = [
        Layer(
            f"block.{place}",
            "Conv2d",
            tuple(layer.weight.shape),
            layer.groups,
            (1, 1),
            (1, 1),
            in_positions=_POSITIONS,
            out_positions=_POSITIONS,
        )
        for place, layer in block.named_children()
        if isinstance(layer, nn.Conv2d)
    ]
    return nn.ModuleDict({"block": block}), layers
