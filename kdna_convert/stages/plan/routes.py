"""The routes of a plan: which layers a recipe's routing stands at, and what their routers store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from ...core.errors import RecipeError
from ...core.specs import Layer, Route, TensorSpec
from ...inputs.recipe import Assignment
from ...network.stored import DTYPES
from ...routing import routing_of


def form_routes(
    model: nn.Module, layers: Sequence[Layer], assignments: Sequence[Assignment]
) -> tuple[tuple[Route, ...], dict[str, str]]:
    """The routes, and the layers that the recipe would route and its routing cannot, with the KD1xx code that says why.

    `layers` are as surveyed. Raises RecipeError KD203 where a rule insists on a routing that none of its layers can
    have, or that the recipe gives to no layer at all.
    """
    by_name = {layer.name: layer for layer in layers}
    wanted: dict[str, list[Assignment]] = {}
    for one in assignments:
        if one.routing is not None and one.reason in (None, "KD115"):
            wanted.setdefault(repr((one.routing, sorted(one.routing_options.items()))), []).append(one)
    routes: list[Route] = []
    left: dict[str, str] = {}
    for alike in wanted.values():
        name, options = alike[0].routing or "", dict(alike[0].routing_options)
        routing = routing_of(Route(name, (by_name[alike[0].layer],), options))
        reasons = {one.layer: routing.can_route(by_name[one.layer]) for one in alike}
        able = [by_name[layer] for layer, reason in reasons.items() if reason is None]
        groups = routing.groups(able, model) if able else []
        placed = {layer.name for group in groups for layer in group}
        left |= {layer: reason or routing.ungrouped for layer, reason in reasons.items() if layer not in placed}
        routes += [Route(name, group, options) for group in groups]
        _require(alike, placed, left)
    order = {layer.name: place for place, layer in enumerate(layers)}
    return tuple(sorted(routes, key=lambda route: order.get(route.members[0], len(order)))), left


def _require(alike: Sequence[Assignment], placed: set[str], left: dict[str, str]) -> None:
    """Raises RecipeError KD203 for a routing, or a rule, whose layers all had to be left out."""
    rules: dict[int | None, list[str]] = {}
    for one in alike:
        rules.setdefault(one.rule, []).append(one.layer)
    for rule, names in rules.items():
        if (rule is not None or len(rules) == 1) and not placed & set(names):
            where = "the recipe" if rule is None else f"rules.{rule}"
            code = left[names[0]]
            raise RecipeError(
                "KD203",
                f"{where}: routing {alike[0].routing} can stand at none of {len(names)} layers, as {names[0]} "
                f"({code}: `kdna explain {code}`)",
            )


def routes_note(left: Mapping[str, str]) -> str:
    """What to say of layers that a routing left out, their codes counted."""
    counts = Counter(left.values())
    said = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
    return f"the routing stands not at {len(left)} layers that it cannot be placed on ({said}), as {next(iter(left))}"


def gate_specs(model: nn.Module, routes: Sequence[Route]) -> tuple[tuple[TensorSpec, ...], int]:
    """What the routers would add to a model's file, by the names it has there, and how many parameters that is."""
    specs: list[TensorSpec] = []
    params = 0
    for route in routes:
        weights = [getattr(model.get_submodule(layer.name), "weight", None) for layer in route.layers]
        like = next((weight for weight in weights if weight is not None), next(model.parameters()))
        built = routing_of(route).build(route.layers, weights, [0] * len(weights))
        for layer, router in zip(route.layers, built, strict=True):
            specs += [
                TensorSpec(
                    f"{layer.name}.gate.{name}",
                    tuple(tensor.shape),
                    DTYPES[like.dtype if tensor.is_floating_point() else tensor.dtype],
                )
                for name, tensor in router.state_dict().items()
            ]
            params += sum(parameter.numel() for parameter in router.parameters())
    return tuple(specs), params
