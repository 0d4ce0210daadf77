"""Meet a budget of the whole net with a tool that takes only one ratio for its layers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from ....core.errors import PlanError

GRID = 1000


def largest_share(size: Callable[[float], int], limit: int) -> float:
    """The largest share, 0 < share <= 1 in steps of 0.001, whose `size` is within the limit. `size` must not decrease.

    Raises:
        PlanError: KD501 if there is none.
    """
    place = bisect_right(range(1, GRID + 1), limit, key=lambda step: size(step / GRID))
    if not place:
        raise PlanError("KD501", f"the tool's smallest net is larger than {limit:,}")
    return place / GRID
