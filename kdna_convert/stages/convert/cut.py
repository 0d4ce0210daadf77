"""Families cut to their leading directions: what there is to choose from, and the net that a choice comes to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import nn

from ...core.errors import PlanError
from ...core.specs import Choice, Database, Plan
from ...inputs.recipe import Recipe
from ...network.derive import derive
from ...routing import attach_routes
from ...schemes import CuttableScheme, scheme_of, size_of
from ..analyze.moments import Moments
from ..analyze.targets import shapes_of, targets
from ..plan.database import SurveyedNet, build_database
from .directions import Ordered, errors, is_product, leading, order
from .nest import rounded, tensors_of


def choices(plan: Plan, net: nn.Module, recipe: Recipe) -> Database:
    """A converted net's families as choices, the errors still to come: from one direction to all, and never dense.

    `net` is the converted net, folded. A family that cannot be cut keeps its size. Raises PlanError KD507 when that is
    all of them.
    """

    def choice(found: Choice) -> Choice:
        size = found.fixed or 0
        whole = replace(found.family, options={**found.family.options, found.size: size})
        if isinstance(scheme_of(whole), CuttableScheme):
            return replace(found, dense=False, fixed=None, limit=size)
        return replace(found, dense=False)

    surveyed = SurveyedNet(net, plan.model, plan.layers, plan.original.macs)
    whole = build_database(surveyed, plan.families, recipe, None, routes=plan.routes)
    found = tuple(map(choice, whole.choices))
    if not any(map(cuttable, found)):
        names = ", ".join(sorted({family.scheme for family in plan.families}))
        which = f"its families are of {names}" if names else "it has no family"
        raise PlanError("KD507", f"nothing of this folder can be cut: {which}; convert the original to that size")
    return replace(whole, choices=found, unrouted=plan.unrouted)


def cuttable(choice: Choice) -> bool:
    """Whether the size of this family is to be chosen."""
    return choice.fixed is None


def order_families(
    model: nn.Module, net: nn.Module, plan: Plan, database: Database, moments: Moments, *, kept: Collection[str]
) -> dict[str, Ordered]:
    """The families that can be cut, by their first members, in the order that they are cut in.

    What they are held against are their own kernels, as the folded `net` has them: a fit to these within some of their
    directions is the fit to the original's. Those in `kept` are in order.
    """
    found = {}
    for family in (choice.family for choice in database.choices if cuttable(choice)):
        owner = family.members[0]
        whole = next(one for one in plan.families if one.members[0] == owner)
        scheme, tensors, aims = scheme_of(whole), tensors_of(model, whole), targets(net, whole, moments)
        if not isinstance(scheme, CuttableScheme):
            continue
        if owner in kept:
            found[owner] = Ordered(*tensors, errors(scheme, *tensors, aims))
        else:
            found[owner] = order(scheme, *tensors, aims)
    return found


def with_errors(database: Database, curves: Mapping[str, tuple[float, ...]]) -> Database:
    """The choices with the error at every size, by the families' first members."""

    def measured(choice: Choice) -> Choice:
        curve = curves.get(choice.family.members[0], ())
        return replace(choice, points=dict(enumerate(curve, start=1)))

    return replace(database, choices=tuple(map(measured, database.choices)))


def cut(
    model: nn.Module,
    net: nn.Module,
    plan: Plan,
    ordered: Mapping[str, Ordered],
    moments: Moments,
    *,
    sweeps: int,
    kept: Collection[str],
) -> dict[str, tuple[float, ...]]:
    """Give the folded `net` the families of `plan`, in place: leading directions, fitted to the kernels it has.

    Each member's mixing is solved; with `sweeps`, the directions first move by so many iterations of the joint fit,
    and are put in order anew. Returns the error at every size of what each such family has become. Those in `kept`,
    whose order was found on images that are not here, are cut without a fit where they are products of two matrices:
    measured, that loses less than a fit on noise. One that cannot be cut keeps the tensors that it has in `model`.
    """
    curves = {}
    for family in plan.families:
        owner, scheme = family.members[0], scheme_of(family)
        if isinstance(scheme, CuttableScheme) and owner in ordered:
            shapes, aims = shapes_of(family, plan.layers), targets(net, family, moments)
            shared, adapters = leading(scheme, shapes, ordered[owner].shared, ordered[owner].adapters, size_of(scheme))
            if sweeps:
                shared, adapters = scheme.refine(shared, adapters, aims, sweeps)
                found = order(scheme, shared, adapters, aims)
                shared, adapters, curves[owner] = found.shared, found.adapters, found.errors
            elif owner not in kept or not is_product(shared, adapters[0]):
                adapters = [scheme.fit(shared, adapter, aim) for adapter, aim in zip(adapters, aims, strict=True)]
        else:
            shared, adapters = tensors_of(model, family)
        derive(net, family, shared, adapters)
    attach_routes(net, plan.routes, plan.seed)
    return curves


def nested(plan: Plan, curves: Mapping[str, tuple[float, ...]]) -> Plan:
    """The plan with the errors by which it can be cut once more, each curve as far as its family goes now."""
    sizes = {family.members[0]: size_of(scheme_of(family)) for family in plan.families}
    return replace(plan, nested={owner: rounded(curve[: sizes[owner]]) for owner, curve in curves.items()})
