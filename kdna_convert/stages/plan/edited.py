"""A plan from a file, perhaps edited by hand: checked against the model, its sizes worked out anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from ...core.errors import PlanError
from ...core.specs import Family, Layer, ModelRef, Plan, Route
from ...inputs.recipe import Recipe
from ...routing import routing_of
from ...schemes import scheme_of
from .database import build_database
from .knapsack import plan_of

# Reasons of the recipe, not of the layer: a plan may convert such a layer all the same.
_BY_CHOICE = (None, "KD101", "KD102", "KD103")


def restate(plan: Plan, model: nn.Module, ref: ModelRef, layers: Sequence[Layer], recipe: Recipe, macs: int) -> Plan:
    """The plan's families with the totals that they have on this model; predictions stay where a family did.

    `layers` are the model's, surveyed; `macs` its multiply-adds. Raises PlanError KD503 when the plan does not fit
    them, RecipeError KD202, KD203 or KD207 for an option or a rank that its scheme does not have.
    """
    found = {layer.name: layer for layer in layers}
    for layer in plan.layers:
        if layer.name in found and layer.shape != found[layer.name].shape:
            shapes = f"{list(layer.shape)} in the plan and {list(found[layer.name].shape)} in this model"
            raise PlanError("KD503", f"the plan is of another model: the kernel of {layer.name} is {shapes}")
    planned = Counter(name for family in plan.families for name in family.members)
    for name, times in planned.items():
        if times > 1:
            raise PlanError("KD503", f"the plan converts {name} {times} times; a layer is in one family")
    for family in plan.families:
        _check(family, found)
    given = {layer.name: layer.reason for layer in plan.layers}
    stated = [
        replace(layer, reason=None if layer.name in planned else layer.reason or given.get(layer.name) or "KD114")
        for layer in layers
    ]
    for route in plan.routes:
        _check_route(route, found, model)
    known = build_database(model, ref, stated, plan.families, {}, recipe, macs=macs, routes=plan.routes, measure=False)
    new = plan_of(known, tuple(choice.fixed for choice in known.choices))
    kept = {owner: loss for owner, loss in plan.predicted.items() if new.stored.get(owner) == plan.stored.get(owner)}
    return replace(new, families=plan.families, predicted=kept, unrouted=plan.unrouted, seed=plan.seed)


def _check_route(route: Route, found: Mapping[str, Layer], model: nn.Module) -> None:
    if not route.layers:
        raise PlanError("KD503", f"the plan has a route of {route.routing} without layers")
    modules = dict(model.named_modules())
    for layer in route.layers:
        own, routing = found.get(layer.name), routing_of(route)
        if layer.name not in modules:
            raise PlanError("KD503", f"the plan routes {layer.name}, which this model does not have")
        if own is not None and (layer.shape, layer.groups) != (own.shape, own.groups):
            shapes = f"{list(layer.shape)} in the plan and {list(own.shape)} in this model"
            raise PlanError("KD503", f"the plan is of another model: the kernel of {layer.name} is {shapes}")
        if own is not None and (reason := routing.can_route(own)):
            raise PlanError("KD503", f"the plan routes {layer.name}, which {route.routing} cannot stand at: {reason}")


def _check(family: Family, found: Mapping[str, Layer]) -> None:
    if not family.members:
        raise PlanError("KD503", f"the plan has a family of scheme {family.scheme} without members")
    for name in family.members:
        if name not in found:
            raise PlanError("KD503", f"the plan converts {name}, which this model does not have")
        if found[name].reason not in _BY_CHOICE:
            raise PlanError("KD503", f"the plan converts {name}, which cannot be converted: {found[name].reason}")
    scheme, owner = scheme_of(family), found[family.members[0]]
    if scheme.size not in family.options:
        raise PlanError("KD503", f"the plan's family of {owner.name} has no {scheme.size} among its options")
    for name in family.members:
        if scheme.shares and scheme.group(found[name].shape) != scheme.group(owner.shape):
            pair = f"{owner.name} {list(owner.shape)} and {name} {list(found[name].shape)}"
            raise PlanError("KD503", f"the plan's scheme {family.scheme} cannot share between {pair}")
