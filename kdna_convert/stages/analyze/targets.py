"""From a net and its moments to the least-squares targets that schemes fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ...core.errors import NumericsError
from ...core.linalg import Target, plain_target
from ...core.specs import Family, Layer
from .moments import Moments
from .survey import target_kernel

# The weight of a layer that the loss does not feel, as a share of the mean sensitivity.
UNFELT = 1e-6


def targets(model: nn.Module, family: Family, moments: Moments) -> list[Target]:
    """One target a member, weighted by how much the loss feels its output.

    Where no layer's sensitivity is known, all weigh by the inverse of their output energy, so that relative errors add
    up; where some are, a layer that the loss does not feel weighs next to nothing. Raises NumericsError KD701 for a
    kernel that is not finite.
    """
    felt = [seen.sensitivity for seen in moments.values() if seen.sensitivity > 0]
    least = UNFELT * sum(felt) / max(len(felt), 1)
    found = []
    for name in family.members:
        kernel = target_kernel(model.get_submodule(name)).cpu()
        if not kernel.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")
        seen = moments[name]
        target = plain_target(kernel, seen.second, max(seen.sensitivity, least), seen.count)
        found.append(target if felt else replace(target, weight=1 / target.energy if target.energy > 0 else 0.0))
    return found


def shapes_of(family: Family, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """The kernel shapes of a family's members, in order."""
    by_name = {layer.name: layer.shape for layer in layers}
    return [by_name[name] for name in family.members]
