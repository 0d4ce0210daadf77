"""The least-squares targets that schemes fit, from a net and its moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from ...core.errors import NumericsError
from ...core.linalg import Target, fit_error, plain_target
from ...core.specs import Family, Layer
from ...core.standardize import as_run, without_mean
from ...network.standardizing import running_kernel, standardized_of
from ...schemes import Scheme, Tensors
from .moments import Moments

# The least weight of a layer, as a share of the mean sensitivity.
LEAST_WEIGHT = 1e-6
# Bytes of targets that are kept for the next family.
ROOM = 2**30


def targets(model: nn.Module, family: Family, moments: Moments) -> list[Target]:
    """One target per member, weighted by the sensitivity of the loss to the layer's output.

    If no sensitivity is known, the weight is the inverse of the output energy, so that relative errors add up.

    Raises:
        NumericsError: KD701 for a kernel that is not finite.
    """
    return TargetStore(model, moments, room=0).targets(family)


class TargetStore:
    """The targets of a net. The latest are kept, with what schemes computed from them, in about `room` bytes."""

    def __init__(self, model: nn.Module, moments: Moments, room: int = ROOM) -> None:
        self.model, self.moments, self.room = model, moments, room
        self.kept: dict[str, Target] = {}
        known = [layer.sensitivity for layer in moments.values() if 0 < layer.sensitivity < math.inf]
        self.least = LEAST_WEIGHT * sum(known) / len(known) if known else None

    def targets(self, family: Family) -> list[Target]:
        """As the function `targets`."""
        found = {name: self.kept[name] if name in self.kept else self._target(name) for name in family.members}
        self.kept = {name: kept for name, kept in self.kept.items() if name not in found} | found
        held = sum(map(_held, self.kept.values()))
        for name in [*self.kept]:
            if held <= self.room:
                break
            held -= _held(self.kept.pop(name))
        return list(found.values())

    def _target(self, name: str) -> Target:
        module = self.model.get_submodule(name)
        kernel, how = running_kernel(module).cpu(), standardized_of(module)
        if not kernel.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")
        own = self.moments[name]
        moment = own.second if how is None else without_mean(own.second, kernel.shape[1])
        target = plain_target(kernel, moment, max(own.sensitivity, self.least or 0.0), own.count)
        target = target if how is None else replace(target, bound=how.bound)
        if self.least is None:
            target = replace(target, weight=1 / target.energy if target.energy > 0 else 0.0)
        return target


def _held(target: Target) -> int:
    """The bytes of a target with what is computed from it, about: its moment in float64, and as much again."""
    return 16 * (target.moment.numel() if isinstance(target.moment, Tensor) else 0) + 32 * target.kernel_on.numel()


def output_error(scheme: Scheme, shared: Tensors, adapter: Tensors, target: Target) -> float:
    """E|W u - K u|^2 of the kernel K that the layer runs with these tensors."""
    kernel_on = scheme.expand(shared, adapter, target.shape).flatten(1)
    return fit_error(kernel_on if target.bound is None else as_run(kernel_on, target.bound), target)


def shapes_of(family: Family, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """The kernel shapes of a family's members, in order."""
    by_name = {layer.name: layer.shape for layer in layers}
    return [by_name[name] for name in family.members]
