"""Least-squares targets of random kernels, and the error that a scheme leaves of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdna_convert.core.linalg import Target, fit_error, plain_target
from kdna_convert.core.specs import Shape, product
from kdna_convert.schemes import Tensors

KERNELS: list[Shape] = [(6, 4, 3, 3)] * 3


CUT: list[Shape] = [(6, 4, 3, 3), (6, 8, 3, 3)]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def aims(shapes: list[Shape], seed: int = 0, kernels: list[Tensor] | None = None) -> list[Target]:
    """Targets of random kernels that resemble each other, under random moments, of unequal weight."""
    targets = []
    for place, shape in enumerate(shapes):
        own = draw(seed + place, *shape) + draw(seed + 99, product(shape)).view(shape)
        root = draw(seed + place + 50, product(shape[1:]), 2 * product(shape[1:]))
        moment = root @ root.T / root.shape[1]
        targets.append(plain_target(own if kernels is None else kernels[place], moment, 1.0 + place))
    return targets


def shared_by(scheme: Any, targets: list[Target]) -> tuple[Tensors, list[Tensors]]:
    return scheme.share(targets, seed=3, sweeps=10)


def error_of(scheme: Any, targets: list[Target], sweeps: int = 15, seed: int = 3) -> float:
    """The weighted error that `share` leaves, relative to the weighted energy."""
    return weighted_error(scheme, targets, *scheme.share(targets, seed=seed, sweeps=sweeps))


def weighted_error(scheme: Any, targets: list[Target], shared: Tensors, adapters: list[Tensors]) -> float:
    """The weighted error of these tensors, relative to the weighted energy."""
    left = [fit_error(scheme.expand(shared, a, t.shape).flatten(1), t) for a, t in zip(adapters, targets, strict=True)]
    energy = sum(t.weight * t.energy for t in targets)
    return sum(t.weight * error for t, error in zip(targets, left, strict=True)) / energy
