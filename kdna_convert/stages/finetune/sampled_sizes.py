"""Train a nested net at a random size in every step.

A nested folder can be cut to its leading directions later. Training at full size alone would lose this property, so
half of the steps run with only a share of the directions, the same share in all families. This is the sandwich rule of
slimmable nets (Yu and Huang 2019, arXiv 1903.05134) with one size per step. The share is a function of the seed and the
step, like the views of the images, so a resumed run draws the same sizes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

from torch import Tensor, nn

from ...network.derive import Derived, derived_layers
from ...schemes import size_of
from ..convert.directions import leading

FULL = 0.5  # share of the steps that run at full size
LEAST = 0.25  # smallest share of the directions
JUDGED = (1.0, (1 + LEAST) / 2)  # sizes that select the best step: full size, and the middle of the other sizes


def drawn_share(seed: int, step: int) -> float:
    """The share of the directions in a step: 1 with probability FULL, else uniform in [LEAST, 1]."""
    draw = Random(f"{seed} {step}")
    return 1.0 if draw.random() < FULL else draw.uniform(LEAST, 1.0)


@contextmanager
def sized(model: nn.Module, layers: Collection[str], share: float) -> Iterator[None]:
    """Inside the context, these layers use only this share of their directions, rounded up."""
    derived = derived_layers(model)
    chosen = [derived[name] for name in layers] if share < 1 else []
    try:
        for weight in chosen:
            size = math.ceil(share * size_of(weight.scheme))
            weight.__dict__["forward"] = partial(_expanded, weight, size)
        yield
    finally:
        for weight in chosen:
            weight.__dict__.pop("forward", None)


def _expanded(weight: Derived, size: int) -> Tensor:
    """The kernel of the first `size` directions."""
    shared, adapter = weight.tensors()
    shared, (adapter,) = leading(weight.scheme, [weight.shape], shared, [adapter], size)
    return weight.weight_of(weight.scheme.expand(shared, adapter, weight.shape))
