"""The whole trade-off: a plan at every budget, and how well its predicted error ranks what is measured. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scipy.stats import spearmanr

from ...core.errors import PlanError
from ...core.specs import Curve, Database, Divergence, Plan, Point
from .knapsack import Budget, solve

# Shares of the net's parameters, from a net hardly touched to one that is hardly there.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)


def curve(
    database: Database,
    *,
    shares: Sequence[float] = SHARES,
    measure: Callable[[Plan], Divergence] | None = None,
) -> Curve:
    """A point for every share of the parameters that can be reached, largest first.

    `measure` converts by a plan and gives its divergence; then the rank correlation of predicted and measured
    divergence is given as well. Raises PlanError KD501 when not one of the shares can be reached.
    """
    points: list[Point] = []
    for share in sorted(shares, reverse=True):
        try:
            plan = solve(database, Budget("params", int(share * database.params)))
        except PlanError:
            if points:
                break
            raise
        seen = None if measure is None else measure(plan)
        points.append(Point(share, plan.planned, sum(plan.predicted.values()), seen))
    return Curve(database.params, tuple(points), correlation(points))


def correlation(points: Sequence[Point]) -> float | None:
    """Spearman's, between predicted error and measured KL divergence; None with fewer than three measured points."""
    pairs = [(point.predicted, point.measured.kl) for point in points if point.measured is not None]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
