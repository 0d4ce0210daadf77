"""From a net and its moments to the least-squares targets that schemes fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .errors import NumericsError
from .linalg import Target, plain_target
from .schemes import make
from .specs import Family, Layer
from .statistics import Moments
from .survey import target_kernel


def targets(model: nn.Module, family: Family, moments: Moments) -> list[Target]:
    """One target a member, weighted by how much the loss feels its output.

    Where the sensitivity of any layer of the net is unknown, all weigh by the inverse of their output energy, so that
    relative errors add up. Raises NumericsError KD701 for a kernel that is not finite.
    """
    felt = all(moments[name].sensitivity > 0 for name in family.members)
    found = []
    for name in family.members:
        kernel = target_kernel(model.get_submodule(name)).cpu()
        if not kernel.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")
        seen = moments[name]
        target = plain_target(kernel, seen.second, seen.sensitivity, seen.count)
        found.append(target if felt else replace(target, weight=1 / max(target.energy, 1e-30)))
    return found


def scheme_of(family: Family, **changed: Any) -> Any:
    """The scheme of a family, its options checked, some of them changed."""
    return make(family.scheme, {**family.options, **changed}, f"family of {family.members[0]}: options")


def shapes_of(family: Family, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """The kernel shapes of a family's members, in order."""
    by_name = {layer.name: layer.shape for layer in layers}
    return [by_name[name] for name in family.members]
