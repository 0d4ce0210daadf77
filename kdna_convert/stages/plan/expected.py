"""Estimate the KL divergence and top-1 agreement of a converted net, with ranges, from the plan's predicted error.

The predicted error is the output error of the layers, weighted by the squared gradient of the loss: to second order
half the rise of the loss, if the errors are small and independent. Large errors add up faster. The ranges below were
measured; docs/decisions/0021 has the derivation, the nets and the command. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...core.measurements import Point
from ...core.specs import Plan

# Measured ratios as rows (x, least, middle, largest). Between two rows they are interpolated on logarithmic axes;
# outside they are constant.
_Rows = tuple[tuple[float, float, float, float], ...]
# KL divergence over predicted error, by predicted error: with repair, and without.
REPAIRED: _Rows = (
    (1e-3, 0.12, 0.8, 5.0),
    (4e-3, 0.12, 1.5, 5.0),
    (1e-2, 0.45, 3.0, 16.0),
    (2e-2, 0.6, 5.0, 24.0),
    (5e-2, 2.5, 9.0, 24.0),
    (1e-1, 2.9, 9.0, 13.0),
    (1.5e-1, 2.9, 9.0, 18.0),
)
UNREPAIRED: _Rows = (
    (1e-3, 0.12, 1.0, 6.0),
    (4e-3, 0.12, 3.0, 22.0),
    (1e-2, 0.45, 10.0, 110.0),
    (2e-2, 0.6, 15.0, 150.0),
    (3.3e-2, 1.0, 17.0, 140.0),
    (5e-2, 2.0, 18.0, 95.0),
    (1e-1, 6.0, 12.0, 50.0),
    (3e-1, 7.0, 10.0, 18.0),
)
# Predicted errors above this were not measured: the converted net has little in common with the original.
LARGEST = 0.6
# 1 - agreement, over the root of the KL divergence, by KL divergence.
DISAGREEMENT: _Rows = (
    (1e-1, 0.02, 0.15, 0.5),
    (4e-1, 0.12, 0.2, 0.5),
    (1e0, 0.2, 0.35, 0.7),
)
# The least expected agreement of a recommended plan.
RECOMMENDED = 0.97


@dataclass(frozen=True)
class Range:
    """A middle value and the range in which measured values were."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Expected:
    """What a net that returns class scores is expected to give: KL divergence from the original in nats per image, and
    top-1 agreement with it, 0..1."""

    kl: Range
    agreement: Range


def expected(plan: Plan | Point, *, repaired: bool = True) -> Expected | None:
    """What the converted net is expected to give.

    Args:
        plan: A plan, or a point of a curve.
        repaired: Whether the conversion is repaired (a recipe with `repair`, and images).

    Returns:
        The ranges; None if nothing was predicted, or an error beyond all that were measured.
    """
    error = plan.predicted if isinstance(plan, Point) else sum(plan.predicted.values())
    if not 0 < error <= LARGEST:
        return None
    rows = REPAIRED if repaired else UNREPAIRED
    low, middle, high = (error * _interpolated(error, rows, column) for column in (1, 2, 3))
    agreement = Range(_agreement(high, column=3), _agreement(middle, column=2), _agreement(low, column=1))
    return Expected(Range(low, middle, high), agreement)


def recommended(points: Sequence[Point], *, repaired: bool = True) -> Point | None:
    """The smallest plan whose agreement is at least `RECOMMENDED`: measured if known, else the expected middle."""

    def agreement(point: Point) -> float:
        if point.measured is not None:
            return point.measured.agreement or 0.0
        ranges = expected(point, repaired=repaired)
        return 0.0 if ranges is None else ranges.agreement.middle

    good = [point for point in points if agreement(point) >= RECOMMENDED]
    return min(good, key=lambda point: point.planned.params, default=None)


def _agreement(kl: float, column: int) -> float:
    return max(0.0, 1 - _interpolated(kl, DISAGREEMENT, column) * math.sqrt(kl))


def _interpolated(x: float, rows: _Rows, column: int) -> float:
    """One column of the rows at x."""
    if x <= rows[0][0]:
        return rows[0][column]
    for left, right in pairwise(rows):
        if x <= right[0]:
            share = math.log(x / left[0]) / math.log(right[0] / left[0])
            return math.exp((1 - share) * math.log(left[column]) + share * math.log(right[column]))
    return rows[-1][column]
