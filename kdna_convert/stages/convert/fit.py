"""Convert a net by a plan: fit every family in float64 and replace the weights of its layers."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ...core.errors import NumericsError
from ...core.linalg import Target
from ...core.measurements import Divergence
from ...core.specs import Family, Layer, Plan, Progress, product
from ...network.derive import derive
from ...network.folder.report import FamilyFit
from ...network.standardizing import free_gains
from ...routing import attach_routes
from ...schemes import scheme_of, size_of
from ..analyze.moments import Moments
from ..analyze.targets import output_error, shapes_of, targets
from ..plan.joint_fit import joint_fit

# The most iterations of a family's joint search by default. A wide family takes fewer, so that its kernels' parameters
# times its size times the iterations stay within WORK, but not fewer than FEWEST.
SWEEPS, WORK, FEWEST = 150, 5e11, 50

Measure = Callable[[nn.Module], Divergence]
Heal = Callable[[nn.Module], Divergence | None]
Fitted = tuple[dict[str, Tensor], list[dict[str, Tensor]]]


def convert(
    model: nn.Module,
    plan: Plan,
    moments: Moments,
    *,
    sweeps: int | None = None,
    measure: Measure | None = None,
    heal: Heal | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, tuple[FamilyFit, ...]]:
    """Convert a copy of `model`. The result is deterministic for the plan's seed.

    Args:
        model: The original net.
        plan: Families with their sizes, and routes.
        moments: Moments of the layers' inputs.
        sweeps: The most iterations of each joint fit; None: `sweeps_of`.
        measure: The divergence from the original on held-out images. It decides between the variants of a scheme;
            without it the error of the fit does.
        heal: Trains the net in place and returns its divergence. With it, families are converted in the order of
            increasing predicted error, and the net is healed after each.
        progress: Called before each family.

    Returns:
        The converted net, and how each family was fitted.

    Raises:
        NumericsError: KD701 for a weight, KD703 for a fit that is not finite; it names the family.
    """
    converted = copy.deepcopy(model)
    fits = {}
    for done, family in enumerate(_by_predicted_error(plan) if heal else plan.families):
        if progress is not None:
            progress(f"fit: {family.members[0]} ({len(family.members)} layers)", done, len(plan.families))
        began = time.perf_counter()
        aims = targets(model, family, moments)
        free_gains(converted, family, plan.layers)
        own = sweeps_of(family, plan.layers) if sweeps is None else sweeps
        chosen, fitted = _fit(converted, family, aims, plan, own, measure)
        derive(converted, chosen, *fitted, plan.layers)
        errors = dict(zip(family.members, _errors(chosen, fitted, aims), strict=True))
        divergence = heal(converted) if heal else None
        spent, healed = time.perf_counter() - began, None if divergence is None else divergence.distance
        fits[family.members[0]] = FamilyFit(family.members[0], errors, chosen.options.get("start"), spent, healed)
    if progress is not None:
        progress("fit", len(plan.families), len(plan.families))
    attach_routes(converted, plan.routes, plan.seed)
    return converted, tuple(fits[family.members[0]] for family in plan.families)


def sweeps_of(family: Family, layers: Sequence[Layer]) -> int:
    """The most iterations of a family's joint search: SWEEPS, or fewer where each takes long."""
    each = size_of(scheme_of(family)) * sum(map(product, shapes_of(family, layers)))
    return min(SWEEPS, max(FEWEST, int(WORK / max(1, each))))


def _by_predicted_error(plan: Plan) -> list[Family]:
    """The families, in the order of increasing predicted error."""
    return sorted(plan.families, key=lambda family: plan.predicted.get(family.members[0], 0.0))


def _fit(
    converted: nn.Module, family: Family, aims: Sequence[Target], plan: Plan, sweeps: int, measure: Measure | None
) -> tuple[Family, Fitted]:
    """The fitted family, with the variant that changes the net least."""
    candidates = []
    for changed in scheme_of(family).variants():
        candidate = replace(family, options={**family.options, **changed})
        fitted = joint_fit(candidate, scheme_of(candidate), aims, seed=plan.seed, sweeps=sweeps)
        candidates.append((candidate, fitted))
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda one: _loss(converted, plan, one[0], one[1], aims, measure))


def _loss(
    converted: nn.Module, plan: Plan, family: Family, fitted: Fitted, aims: Sequence[Target], measure: Measure | None
) -> float:
    if measure is None:
        return sum(_errors(family, fitted, aims))
    try:
        return measure(derive(copy.deepcopy(converted), family, *fitted, plan.layers)).distance
    except NumericsError:  # outputs that are not finite: this variant loses
        return float("inf")


def _errors(family: Family, fitted: Fitted, aims: Sequence[Target]) -> list[float]:
    """Each member's output error relative to its output energy."""
    scheme = scheme_of(family)
    shared, adapters = fitted
    return [
        output_error(scheme, shared, adapter, aim) / max(aim.energy, 1e-60)
        for adapter, aim in zip(adapters, aims, strict=True)
    ]
