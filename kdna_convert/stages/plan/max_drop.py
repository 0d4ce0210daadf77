"""Find the smallest plan within an allowed drop: a search over budgets, with a conversion for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...core.errors import GuardError, PlanError
from ...network.folder.report import Trial

T = TypeVar("T")
# Shares of the parameters: the largest and the smallest tried, and the precision of the search.
MOST, LEAST, FINE = 0.9, 0.02, 0.01


@dataclass(frozen=True)
class Smallest(Generic[T]):
    """The smallest result within the allowed drop, and all trials."""

    result: T
    trials: tuple[Trial, ...]


def smallest(attempt: Callable[[float], tuple[T, float]], most_drop: float) -> Smallest[T]:
    """Bisect over shares of the parameters, assuming that the drop falls as the share grows.

    Args:
        attempt: Converts to a share of the parameters. Returns the result and its drop in points, or raises PlanError
            KD501 for a share that cannot be reached.
        most_drop: The allowed drop, in points.

    Raises:
        GuardError: KD801 if even the largest share drops more.
    """
    trials: list[Trial] = []
    result, drop = attempt(MOST)
    trials.append(Trial(MOST, drop))
    if drop > most_drop:
        raise GuardError(
            "KD801",
            f"even {MOST:.0%} of the parameters lose {drop:.2f} points, and {most_drop:g} are allowed; "
            "allow more, or exclude the layers that lose most",
        )
    low, high = LEAST, MOST
    while high - low > FINE:
        share = (low + high) / 2
        try:
            attempted, drop = attempt(share)
        except PlanError as error:
            if error.code != "KD501":
                raise
            low = share
            continue
        trials.append(Trial(share, drop))
        if drop > most_drop:
            low = share
        else:
            result, high = attempted, share
    return Smallest(result, tuple(trials))
