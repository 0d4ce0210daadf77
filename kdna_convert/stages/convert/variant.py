"""One fine-tune of several: with the tensors that were fitted for all, or fitted to the tensors of a folder."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import NumericsError
from ...core.linalg import Target, minimize, times
from ...core.specs import Family, Plan, Progress
from ...network.derive import derive, derived_layers
from ...network.folder.report import FamilyFit
from ...network.standardizing import free_gains
from ...schemes import Scheme, Tensors, scheme_of
from ..analyze.moments import Moments
from ..analyze.targets import output_error, targets
from .nest import tensors_of

# The most iterations in which the parts of an adapter that have no closed form are searched.
ITERATIONS = 60


def with_tensors_of(original: nn.Module, plan: Plan, converted: nn.Module) -> nn.Module:
    """A copy of the original with copies of the tensors of a converted net, which has the families of the plan."""
    net, derived = copy.deepcopy(original), derived_layers(converted)
    for family in plan.families:
        members = [derived[name].tensors() for name in family.members]
        free_gains(net, family, plan.layers)
        derive(net, family, members[0][0], [adapter for _, adapter in members], plan.layers)
    return net


def fit_adapters(
    original: nn.Module, plan: Plan, moments: Moments, bank: nn.Module, progress: Progress | None = None
) -> tuple[nn.Module, tuple[FamilyFit, ...]]:
    """Convert a copy of a net with the shared tensors of another. Only the adapters are fitted, indices included.

    Args:
        original: The net.
        plan: That of the other net, which has the same families.
        moments: Moments of the layers' inputs.
        bank: The other net, converted.
        progress: Called before each family.

    Raises:
        NumericsError: KD701 for a weight, KD703 for a fit that is not finite.
    """
    net, fits = copy.deepcopy(original), []
    for done, family in enumerate(plan.families):
        if progress is not None:
            progress(f"fit: {family.members[0]} ({len(family.members)} layers)", done, len(plan.families))
        began, scheme = time.perf_counter(), scheme_of(family)
        shared, starts = tensors_of(bank, family)
        aims = targets(original, family, moments)
        adapters = [fitted_adapter(scheme, shared, start, aim) for start, aim in zip(starts, aims, strict=True)]
        _require_finite(family, adapters)
        errors = [
            output_error(scheme, shared, adapter, aim) / max(aim.energy, 1e-60)
            for adapter, aim in zip(adapters, aims, strict=True)
        ]
        free_gains(net, family, plan.layers)
        derive(net, family, shared, adapters, plan.layers)
        by_layer = dict(zip(family.members, errors, strict=True))
        fits.append(FamilyFit(family.members[0], by_layer, None, time.perf_counter() - began))
    return net, tuple(fits)


def fitted_adapter(scheme: Scheme, shared: Tensors, start: Tensors, target: Target) -> Tensors:
    """The adapter with the least output error at these shared tensors, searched from `start`."""
    if not start:  # the member is the parent itself
        return start
    solved = scheme.reassign(shared, start, target)
    searched = scheme.fit(shared, _searched(scheme, shared, solved, target), target)
    return min((solved, searched), key=lambda adapter: output_error(scheme, shared, adapter, target))


def _searched(scheme: Scheme, shared: Tensors, start: Tensors, target: Target) -> Tensors:
    """The adapter after a search over all its tensors but the indices, by L-BFGS down the exact error."""
    letters = [letter for letter, tensor in start.items() if tensor.is_floating_point()]
    scale = 1 / max(target.energy, 1e-60)

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        own = [tensor.clone().requires_grad_() for tensor in point]
        kernel = scheme.expand(shared, {**start, **dict(zip(letters, own, strict=True))}, target.shape)
        gap_on = target.kernel_on - kernel.flatten(1)
        value = scale * (times(gap_on, target.moment) * gap_on).sum()
        return float(value.detach()), list(torch.autograd.grad(value, own))

    found = minimize(error, [start[letter] for letter in letters], ITERATIONS)
    return {**start, **dict(zip(letters, found, strict=True))}


def _require_finite(family: Family, adapters: Sequence[Tensors]) -> None:
    for name, adapter in zip(family.members, adapters, strict=True):
        if not all(tensor.isfinite().all() for tensor in adapter.values()):
            raise NumericsError("KD703", f"{name}: its fit to the shared tensors of the folder is not finite")
