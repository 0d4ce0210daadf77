"""The smallest share of a net that loses no more than so much: a search over budgets, each tried by a conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...core.errors import GuardError, PlanError
from ...network.folder.report import Trial

T = TypeVar("T")
# Shares of the parameters: where the search begins, and how fine it ends.
MOST, LEAST, FINE = 0.9, 0.02, 0.01


@dataclass(frozen=True)
class Found(Generic[T]):
    """The smallest that held, and everything that was tried."""

    result: T
    trials: tuple[Trial, ...]


def smallest(attempt: Callable[[float], tuple[T, float]], most_drop: float) -> Found[T]:
    """Bisection over shares of the parameters: the drop is taken to fall as the share grows.

    `attempt(share)` returns a result and its drop, in points, or raises PlanError KD501 for a share that cannot be
    reached. Raises GuardError KD801 when even the largest share tried loses more.
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
            found, drop = attempt(share)
        except PlanError as error:
            if error.code != "KD501":
                raise
            low = share
            continue
        trials.append(Trial(share, drop))
        if drop > most_drop:
            low = share
        else:
            result, high = found, share
    return Found(result, tuple(trials))
