"""Sizes drawn at random, a new one every step, for a net whose families have their directions in order.

A nested folder can be cut to its leading directions afterwards; trained at its full size alone, it forgets that it can.
So half of the steps run with a share of the directions, the same share in all families: the sandwich of slimmable nets
(Yu and Huang 2019, arXiv 1903.05134), one size a step. A draw is a function of the seed and the step, like the views of
the images, so that a resumed run meets the same sizes.
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

FULL, LEAST = 0.5, 0.25  # of the steps, those at full size; of the directions, the smallest share that is drawn
JUDGED = (1.0, (1 + LEAST) / 2)  # the sizes that decide which tensors are best: the full one, the middle of the others


def drawn_share(seed: int, step: int) -> float:
    """1 with the probability FULL, else uniform in [LEAST, 1]."""
    draw = Random(f"{seed} {step}")
    return 1.0 if draw.random() < FULL else draw.uniform(LEAST, 1.0)


@contextmanager
def sized(model: nn.Module, layers: Collection[str], share: float) -> Iterator[None]:
    """These layers with that share of their directions, rounded up, for as long as the context lasts."""
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
    return weight.scheme.expand(shared, adapter, weight.shape)
