"""A plan from a file, perhaps edited by hand: checked against the model, with its totals computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ...core.errors import PlanError
from ...core.specs import Family, Layer, Plan, Route
from ...inputs.recipe import Recipe
from ...routing import routing_of
from ...schemes import scheme_of
from .database import SurveyedNet, build_database
from .knapsack import plan_of

# Reasons that come from the recipe, not from the layer: a plan may convert such a layer.
_RECIPE_REASONS = (None, "KD101", "KD102", "KD103")


def restate(plan: Plan, net: SurveyedNet, recipe: Recipe) -> Plan:
    """The plan's families with their totals on this net; a prediction is kept if its family stores as much as before.

    Raises:
        PlanError: KD503 if the plan does not fit the net.
        RecipeError: KD202, KD203 or KD207 for an option or a rank that its scheme does not have.
    """
    layers = {layer.name: layer for layer in net.layers}
    planned = Counter(name for family in plan.families for name in family.members)
    _require_same_shapes(plan, layers)
    for name, times in planned.items():
        if times > 1:
            raise PlanError("KD503", f"the plan converts {name} {times} times; a layer is in one family")
    for family in plan.families:
        _check_family(family, layers)
    reasons = {layer.name: layer.reason for layer in plan.layers}
    stated = tuple(
        replace(layer, reason=None if layer.name in planned else layer.reason or reasons.get(layer.name) or "KD114")
        for layer in net.layers
    )
    for route in plan.routes:
        _check_route(route, layers, net.model)
    database = build_database(replace(net, layers=stated), plan.families, recipe, None, routes=plan.routes)
    new = plan_of(database, tuple(choice.fixed for choice in database.choices))
    kept = {owner: error for owner, error in plan.predicted.items() if new.stored.get(owner) == plan.stored.get(owner)}
    board = plan.board if new.stored == plan.stored else None  # an estimate of other sizes says nothing
    return replace(new, families=plan.families, predicted=kept, unrouted=plan.unrouted, seed=plan.seed, board=board)


def _require_same_shapes(plan: Plan, layers: Mapping[str, Layer]) -> None:
    for layer in plan.layers:
        if layer.name in layers and layer.shape != layers[layer.name].shape:
            raise _other_model(layer, layers[layer.name])


def _other_model(planned: Layer, own: Layer) -> PlanError:
    shapes = f"{list(planned.shape)} in the plan and {list(own.shape)} in this model"
    return PlanError("KD503", f"the plan is of another model: the kernel of {planned.name} is {shapes}")


def _check_route(route: Route, layers: Mapping[str, Layer], model: nn.Module) -> None:
    if not route.layers:
        raise PlanError("KD503", f"the plan has a route of {route.routing} without layers")
    modules = dict(model.named_modules())
    for layer in route.layers:
        own, routing = layers.get(layer.name), routing_of(route)
        if layer.name not in modules:
            raise PlanError("KD503", f"the plan routes {layer.name}, which this model does not have")
        if own is not None and (layer.shape, layer.groups) != (own.shape, own.groups):
            raise _other_model(layer, own)
        if own is not None and (reason := routing.can_route(own)):
            message = f"the plan routes {layer.name}, which {route.routing} does not support: {reason}"
            raise PlanError("KD503", message)


def _check_family(family: Family, layers: Mapping[str, Layer]) -> None:
    if not family.members:
        raise PlanError("KD503", f"the plan has a family of scheme {family.scheme} without members")
    for name in family.members:
        if name not in layers:
            raise PlanError("KD503", f"the plan converts {name}, which this model does not have")
        if layers[name].reason not in _RECIPE_REASONS:
            raise PlanError("KD503", f"the plan converts {name}, which cannot be converted: {layers[name].reason}")
    scheme, owner = scheme_of(family), layers[family.members[0]]
    if scheme.size not in family.options:
        raise PlanError("KD503", f"the plan's family of {owner.name} has no {scheme.size} among its options")
    for name in family.members:
        if scheme.shares and scheme.group(layers[name].shape) != scheme.group(owner.shape):
            pair = f"{owner.name} {list(owner.shape)} and {name} {list(layers[name].shape)}"
            raise PlanError("KD503", f"the plan's scheme {family.scheme} cannot share between {pair}")
