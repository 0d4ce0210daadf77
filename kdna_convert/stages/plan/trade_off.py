"""Trade off size against error: a plan at every budget, and how well predicted errors rank measured ones. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scipy.stats import spearmanr

from ...core.choices import Database
from ...core.errors import PlanError
from ...core.measurements import Curve, Divergence, Point
from ...core.specs import Plan
from .budget import PlanBudget
from .knapsack import solve
from .prices import Prices

# Shares of the net's parameters.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)


def trade_off(
    database: Database,
    *,
    shares: Sequence[float] = SHARES,
    measure: Callable[[Plan], Divergence] | None = None,
    prices: Prices | None = None,
) -> Curve:
    """Plan for every share of the parameters.

    Args:
        database: The families with their layouts and predicted errors.
        shares: Shares of the net's parameters.
        measure: Converts by a plan and returns the divergence; None: nothing is measured.
        prices: Those of parameters, if they are known already.

    Returns:
        A point for every share that can be reached, largest first, and the rank correlation of predicted error and
        measured divergence.

    Raises:
        PlanError: KD501 if no share can be reached.
    """
    points: list[Point] = []
    prices = prices or Prices(database, "params")
    for share in sorted(shares, reverse=True):
        try:
            plan = solve(database, PlanBudget("params", int(share * database.params)), prices=prices)
        except PlanError:
            if points:
                break
            raise
        divergence = None if measure is None else measure(plan)
        points.append(Point(share, plan.planned, sum(plan.predicted.values()), divergence))
    return Curve(database.params, tuple(points), correlation(points))


def correlation(points: Sequence[Point]) -> float | None:
    """Spearman's correlation of predicted error and measured divergence; None for fewer than three points."""
    pairs = [(point.predicted, point.measured.distance) for point in points if point.measured is not None]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)
