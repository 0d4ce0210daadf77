"""Convert a net by a plan: fit every family in float64 and replace the weights of its layers."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from ...core.errors import NumericsError
from ...core.linalg import Target
from ...core.measurements import Divergence
from ...core.side_by_side import side_by_side
from ...core.specs import Family, Layer, Plan, Progress, product
from ...network.derive import derive
from ...network.folder.report import FamilyFit
from ...network.standardizing import free_gains
from ...routing import attach_routes
from ...schemes import scheme_of, size_of
from ..analyze.moments import Moments
from ..analyze.targets import output_error, shapes_of, targets
from ..plan.joint_fit import is_wide, joint_fit

# The most iterations of a family's joint search by default. A wide family takes fewer, so that its kernels' parameters
# times its size times the iterations stay within WORK, but not fewer than FEWEST.
SWEEPS, WORK, FEWEST = 150, 5e11, 50

Measure = Callable[[nn.Module], Divergence]
Heal = Callable[[nn.Module], Divergence | None]
# The shared tensors of a family, and each member's adapter.
FamilyTensors = tuple[dict[str, Tensor], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class _Fitted:
    """A fitted family with the options that were chosen, and each member's relative output error."""

    family: Family
    tensors: FamilyTensors
    errors: dict[str, float]
    seconds: float


# Of the variants of a scheme, the one with the least loss is kept.
Loss = Callable[[_Fitted], float]


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

    def fit(family: Family, loss: Loss) -> _Fitted:
        return _fit(family, targets(model, family, moments), plan, sweeps, loss)

    def report(family: Family, done: int) -> None:
        if progress is not None:
            progress(f"fit: {family.members[0]} ({len(family.members)} layers)", done, len(plan.families))

    def loss(one: _Fitted) -> float:
        return sum(one.errors.values()) if measure is None else _loss(converted, plan, one, measure)

    narrow = [family for family in plan.families if _is_independent(family) and not is_wide(family, plan.layers)]
    tasks = [partial(fit, family, loss) for family in narrow]
    fitted = side_by_side(tasks, lambda place: report(narrow[place], place))
    known = {family.members: own for family, own in zip(narrow, fitted, strict=True)}
    fits, done = {}, len(known)
    for family in _by_predicted_error(plan) if heal else plan.families:
        if family.members not in known:
            report(family, done)
            done += 1
        began = time.perf_counter()
        free_gains(converted, family, plan.layers)
        own = known.get(family.members) or fit(family, loss)
        derive(converted, own.family, *own.tensors, plan.layers)
        divergence = heal(converted) if heal else None
        spent, healed = time.perf_counter() - began, None if divergence is None else divergence.distance
        fits[family.members[0]] = FamilyFit(
            family.members[0], own.errors, own.family.options.get("start"), own.seconds + spent, healed
        )
    if progress is not None:
        progress("fit", len(plan.families), len(plan.families))
    attach_routes(converted, plan.routes, plan.seed)
    return converted, tuple(fits[family.members[0]] for family in plan.families)


def _is_independent(family: Family) -> bool:
    """Whether the fit of a family does not depend on what is converted already: it has no variants to choose from."""
    return len(scheme_of(family).variants()) == 1


def sweeps_of(family: Family, layers: Sequence[Layer]) -> int:
    """The most iterations of a family's joint search: SWEEPS, or fewer where each takes long."""
    each = size_of(scheme_of(family)) * sum(map(product, shapes_of(family, layers)))
    return min(SWEEPS, max(FEWEST, int(WORK / max(1, each))))


def _by_predicted_error(plan: Plan) -> list[Family]:
    """The families, in the order of increasing predicted error."""
    return sorted(plan.families, key=lambda family: plan.predicted.get(family.members[0], 0.0))


def _fit(family: Family, aims: Sequence[Target], plan: Plan, sweeps: int | None, loss: Loss) -> _Fitted:
    """The fitted family, in the variant with the least loss."""
    began = time.perf_counter()
    most = sweeps_of(family, plan.layers) if sweeps is None else sweeps
    candidates = []
    for changed in scheme_of(family).variants():
        candidate = replace(family, options={**family.options, **changed})
        tensors = joint_fit(candidate, scheme_of(candidate), aims, seed=plan.seed, sweeps=most)
        errors = dict(zip(family.members, _errors(candidate, tensors, aims), strict=True))
        candidates.append(_Fitted(candidate, tensors, errors, 0.0))
    best = candidates[0] if len(candidates) == 1 else min(candidates, key=loss)
    return replace(best, seconds=time.perf_counter() - began)


def _loss(converted: nn.Module, plan: Plan, one: _Fitted, measure: Measure) -> float:
    """The distance from the original with this family converted too."""
    try:
        return measure(derive(copy.deepcopy(converted), one.family, *one.tensors, plan.layers)).distance
    except NumericsError:  # outputs that are not finite: this variant loses
        return float("inf")


def _errors(family: Family, tensors: FamilyTensors, aims: Sequence[Target]) -> list[float]:
    """Each member's output error relative to its output energy."""
    scheme = scheme_of(family)
    shared, adapters = tensors
    return [
        output_error(scheme, shared, adapter, aim) / max(aim.energy, 1e-60)
        for adapter, aim in zip(adapters, aims, strict=True)
    ]
