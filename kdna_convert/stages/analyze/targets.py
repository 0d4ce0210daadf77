"""The least-squares targets that schemes fit, from a net and its moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ...core.errors import NumericsError
from ...core.linalg import Target, plain_target
from ...core.specs import Family, Layer
from .moments import Moments
from .survey import target_kernel

# The least weight of a layer, as a share of the mean sensitivity.
LEAST_WEIGHT = 1e-6


def targets(model: nn.Module, family: Family, moments: Moments) -> list[Target]:
    """One target per member, weighted by the sensitivity of the loss to the layer's output.

    If no sensitivity is known, the weight is the inverse of the output energy, so that relative errors add up.

    Raises:
        NumericsError: KD701 for a kernel that is not finite.
    """
    sensitivities = [layer.sensitivity for layer in moments.values() if layer.sensitivity > 0]
    least = LEAST_WEIGHT * sum(sensitivities) / max(len(sensitivities), 1)
    result = []
    for name in family.members:
        kernel = target_kernel(model.get_submodule(name)).cpu()
        if not kernel.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")
        own = moments[name]
        target = plain_target(kernel, own.second, max(own.sensitivity, least), own.count)
        if not sensitivities:
            target = replace(target, weight=1 / target.energy if target.energy > 0 else 0.0)
        result.append(target)
    return result


def shapes_of(family: Family, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """The kernel shapes of a family's members, in order."""
    by_name = {layer.name: layer.shape for layer in layers}
    return [by_name[name] for name in family.members]
