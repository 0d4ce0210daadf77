"""Cut the families of a converted net to their leading directions: the sizes to choose from, and the cut net."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import nn

from ...core.choices import Choice, Database
from ...core.errors import PlanError
from ...core.specs import Plan
from ...inputs.recipe import Recipe
from ...network.derive import derive
from ...network.standardizing import free_gains
from ...routing import attach_routes
from ...schemes import CuttableScheme, scheme_of, size_of
from ..analyze.moments import Moments
from ..analyze.targets import shapes_of, targets
from ..plan.database import SurveyedNet, build_database
from .directions import Ordered, errors, is_product, leading, order
from .nest import rounded, tensors_of


def choices(plan: Plan, net: nn.Module, recipe: Recipe) -> Database:
    """The families of a converted net as choices, from one direction to all of them, never dense, without errors.

    Args:
        plan: The plan of the conversion.
        net: The converted net, folded.
        recipe: Its recipe.

    Raises:
        PlanError: KD507 if no family can be cut. One that cannot keeps its size.
    """

    def choice(fixed: Choice) -> Choice:
        size = fixed.fixed or 0
        whole = replace(fixed.family, options={**fixed.family.options, fixed.size: size})
        if isinstance(scheme_of(whole), CuttableScheme):
            return replace(fixed, dense=False, fixed=None, limit=size)
        return replace(fixed, dense=False)

    surveyed = SurveyedNet(net, plan.model, plan.layers, plan.original.macs, plan.original.bytes)
    whole = build_database(surveyed, plan.families, recipe, None, routes=plan.routes)
    result = tuple(map(choice, whole.choices))
    if not any(map(cuttable, result)):
        names = ", ".join(sorted({family.scheme for family in plan.families}))
        which = f"its families are of {names}" if names else "it has no family"
        raise PlanError("KD507", f"no family of this folder can be cut: {which}; convert the original to that size")
    return replace(whole, choices=result, unrouted=plan.unrouted)


def cuttable(choice: Choice) -> bool:
    """Whether the size of this family can be chosen."""
    return choice.fixed is None


def order_families(
    model: nn.Module, net: nn.Module, plan: Plan, database: Database, moments: Moments, *, kept: Collection[str]
) -> dict[str, Ordered]:
    """The families that can be cut, with their directions in order, by first member.

    Their targets are their own kernels in the folded `net`: fitting some of their directions to these is the same as
    fitting them to the kernels of the original. Families in `kept` are in order already.
    """
    ordered = {}
    for family in (choice.family for choice in database.choices if cuttable(choice)):
        owner = family.members[0]
        whole = next(one for one in plan.families if one.members[0] == owner)
        scheme, tensors, aims = scheme_of(whole), tensors_of(model, whole), targets(net, whole, moments)
        if not isinstance(scheme, CuttableScheme):
            continue
        if owner in kept:
            ordered[owner] = Ordered(*tensors, errors(scheme, *tensors, aims))
        else:
            ordered[owner] = order(scheme, *tensors, aims)
    return ordered


def with_errors(database: Database, curves: Mapping[str, tuple[float, ...]]) -> Database:
    """The database with the error of every family at every size; `curves` are by first member."""

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
    """Give the folded `net` the families of `plan` in place: their leading directions, fitted to its kernels.

    Args:
        model: The converted net. A family that cannot be cut keeps its tensors from here.
        net: The same net, folded.
        plan: The plan with the smaller sizes.
        ordered: The families with their directions in order.
        moments: Moments of the layers' inputs.
        sweeps: Iterations of a joint fit, after which directions are ordered again; 0: only the mixing of each member
            is solved for.
        kept: Families whose order comes from images that are not available here. If they are products of two matrices
            they are cut without a fit: measured, this loses less than a fit on noise.

    Returns:
        For each family that was fitted jointly, the error at every size.
    """
    curves = {}
    for family in plan.families:
        owner, scheme = family.members[0], scheme_of(family)
        if isinstance(scheme, CuttableScheme) and owner in ordered:
            shapes, aims = shapes_of(family, plan.layers), targets(net, family, moments)
            shared, adapters = leading(scheme, shapes, ordered[owner].shared, ordered[owner].adapters, size_of(scheme))
            if sweeps or owner not in kept or not is_product(shared, adapters[0]):
                free_gains(net, family, plan.layers)
            if sweeps:
                shared, adapters = scheme.refine(shared, adapters, aims, sweeps)
                again = order(scheme, shared, adapters, aims)
                shared, adapters, curves[owner] = again.shared, again.adapters, again.errors
            elif owner not in kept or not is_product(shared, adapters[0]):
                adapters = [scheme.fit(shared, adapter, aim) for adapter, aim in zip(adapters, aims, strict=True)]
        else:
            shared, adapters = tensors_of(model, family)
        derive(net, family, shared, adapters, plan.layers)
    attach_routes(net, plan.routes, plan.seed)
    return curves


def nested(plan: Plan, curves: Mapping[str, tuple[float, ...]]) -> Plan:
    """The plan with the error of each family at every size up to its own, for the next cut."""
    sizes = {family.members[0]: size_of(scheme_of(family)) for family in plan.families}
    return replace(plan, nested={owner: rounded(curve[: sizes[owner]]) for owner, curve in curves.items()})
