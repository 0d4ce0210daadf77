"""Holding a tool that knows only layer-wise ratios to a budget of the whole net."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from ....core.errors import PlanError

GRID = 1000


def largest_share(size: Callable[[float], int], limit: int) -> float:
    """The largest share in thousandths, 0 < share <= 1, whose `size` is within the limit, if size never falls with it.

    Raises PlanError KD501 when none is.
    """
    place = bisect_right(range(1, GRID + 1), limit, key=lambda step: size(step / GRID))
    if not place:
        raise PlanError("KD501", f"the tool's smallest net is larger than {limit:,}")
    return place / GRID
