"""Order the directions of a converted net's families, so that they can be cut later."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ...core.specs import Family, Plan
from ...network.derive import derived_layers
from ...schemes import CuttableScheme, Tensors, scheme_of
from ..analyze.moments import Moments
from ..analyze.targets import targets
from .directions import order


def nest(model: nn.Module, plan: Plan, original: nn.Module, moments: Moments) -> tuple[Plan, list[str]]:
    """Order the directions of every family in place; the net computes the same up to rounding.

    Args:
        model: The converted net.
        plan: Its plan.
        original: The original net.
        moments: The moments of the original.

    Returns:
        The plan with the error at every size as `nested`, and a note for every family without directions.

    Raises:
        NumericsError: KD701, KD703 for tensors that are not finite.
    """
    nested, notes = {}, []
    for family in plan.families:
        scheme = scheme_of(family)
        if not isinstance(scheme, CuttableScheme):
            notes.append(f"{family.members[0]}: a family of {scheme.name} has no order and cannot be cut later (KD116)")
            continue
        ordered = order(scheme, *tensors_of(model, family), targets(original, family, moments))
        _put(model, family, ordered.shared, ordered.adapters)
        nested[family.members[0]] = rounded(ordered.errors)
    return replace(plan, nested=nested), notes


def tensors_of(model: nn.Module, family: Family) -> tuple[Tensors, list[Tensors]]:
    """Copies of a family's tensors (shared, adapters) in float64; indices keep their type."""
    derived = derived_layers(model)
    members = [derived[name].tensors() for name in family.members]
    return _copies(members[0][0]), [_copies(adapter) for _, adapter in members]


def rounded(errors: tuple[float, ...]) -> tuple[float, ...]:
    """Round to four digits: the plan holds hundreds of these numbers, and people read it."""
    return tuple(float(f"{error:.4g}") for error in errors)


def _copies(tensors: Tensors) -> Tensors:
    held = {letter: tensor.detach().cpu().clone() for letter, tensor in tensors.items()}
    return {letter: tensor.double() if tensor.is_floating_point() else tensor for letter, tensor in held.items()}


def _put(model: nn.Module, family: Family, shared: Tensors, adapters: list[Tensors]) -> None:
    derived = derived_layers(model)
    places = [(derived[family.members[0]].shared, shared)]
    places += [(derived[name].adapter, own) for name, own in zip(family.members, adapters, strict=True)]
    with torch.no_grad():
        for home, tensors in places:
            for letter, tensor in tensors.items():
                home[letter].copy_(tensor)
