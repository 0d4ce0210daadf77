"""The routes of a plan: the layers with a routing, and the tensors of their routers."""

from __future__ import annotations

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
    """Form the routes of a recipe.

    Args:
        model: The original net.
        layers: Its surveyed layers.
        assignments: What the recipe says about each of them.

    Returns:
        The routes, and the KD1xx code of the reason for each layer that the recipe routes and its routing skips.

    Raises:
        RecipeError: KD203 if the routing of the recipe, or of a rule, supports none of its layers.
    """
    by_name = {layer.name: layer for layer in layers}
    by_routing: dict[str, list[Assignment]] = {}
    for one in assignments:
        if one.routing is not None and one.reason in (None, "KD115"):
            by_routing.setdefault(repr((one.routing, sorted(one.routing_options.items()))), []).append(one)
    routes: list[Route] = []
    skipped: dict[str, str] = {}
    for assigned in by_routing.values():
        name, options = assigned[0].routing or "", dict(assigned[0].routing_options)
        routing = routing_of(Route(name, (by_name[assigned[0].layer],), options))
        reasons = {one.layer: routing.can_route(by_name[one.layer]) for one in assigned}
        able = [by_name[layer] for layer, reason in reasons.items() if reason is None]
        groups = routing.groups(able, model) if able else []
        placed = {layer.name for group in groups for layer in group}
        skipped |= {layer: reason or routing.ungrouped for layer, reason in reasons.items() if layer not in placed}
        routes += [Route(name, group, options) for group in groups]
        _require(assigned, placed, skipped)
    order = {layer.name: place for place, layer in enumerate(layers)}
    return tuple(sorted(routes, key=lambda route: order.get(route.members[0], len(order)))), skipped


def _require(assigned: Sequence[Assignment], placed: set[str], skipped: dict[str, str]) -> None:
    """Raise KD203 for a routing or a rule if all of its layers are skipped."""
    rules: dict[int | None, list[str]] = {}
    for one in assigned:
        rules.setdefault(one.rule, []).append(one.layer)
    for rule, names in rules.items():
        if (rule is not None or len(rules) == 1) and not placed & set(names):
            where = "the recipe" if rule is None else f"rules.{rule}"
            code = skipped[names[0]]
            raise RecipeError(
                "KD203",
                f"{where}: routing {assigned[0].routing} supports none of {len(names)} layers: {names[0]} and others "
                f"({code}, see `kdna explain {code}`)",
            )


def routes_note(skipped: Mapping[str, str]) -> str:
    """A note on the layers that a routing skips, by the code of the reason."""
    by_code: dict[str, list[str]] = {}
    for name, code in skipped.items():
        by_code.setdefault(code, []).append(name)
    reasons = "; ".join(f"{code}: {_listed(names)}" for code, names in sorted(by_code.items()))
    return f"routing skips {len(skipped)} unsupported layer{'s' * (len(skipped) > 1)} ({reasons})"


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def gate_specs(model: nn.Module, routes: Sequence[Route]) -> tuple[tuple[TensorSpec, ...], int]:
    """The tensors that the routers add to a model's file, by their stored names, and their number of parameters."""
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
