"""What a plan chooses from, and what it keeps, as an integer program. No torch, no model.

A pair (family, size) is a column. Families that compete for a layer exclude one another. A row is a budget or a limit
that adds up; the limit of memory removes columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ...core.choices import Database
from ...core.errors import PlanError
from .costs import Sizes
from .limits import PeakLimit


@dataclass(frozen=True)
class Row:
    """Something that a plan keeps within `amount`.

    Attributes:
        amount: The most.
        price: By the number of a family and its size: how much more than its dense layers.
        total: Of a whole plan, exactly.
        within: In messages: a budget of 12,000 parameters, or --max-flash 100 kB.
        refusal: The error for a least total above the amount.
        text: An amount with its unit.
        adds_up: Whether the total grows by the prices, exactly.
    """

    amount: int
    price: Callable[[int, int], int]
    total: Callable[[Sizes], int]
    within: str
    refusal: Callable[[int], PlanError]
    text: Callable[[int], str]
    adds_up: bool = True

    def additive(self, sizes: Sizes) -> int:
        """The sum of the prices."""
        return sum(self.price(number, size) for number, size in enumerate(sizes) if size is not None)


@dataclass(frozen=True)
class Problem:
    """The sizes among which a plan chooses, and what it keeps. Without a limit of memory, `peak` is None."""

    database: Database
    rows: tuple[Row, ...]
    grids: tuple[tuple[int, ...], ...]
    peak: PeakLimit | None = None

    def allows(self, number: int, size: int) -> bool:
        return self.peak is None or self.peak.allows(number, size)

    @property
    def allowed(self) -> list[list[int]]:
        """The sizes of each family that the limit of memory allows."""
        return [[size for size in sizes if self.allows(number, size)] for number, sizes in enumerate(self.grids)]


@dataclass(frozen=True)
class Offer:
    """The pairs (family, size) among which the knapsack chooses, and which of them exclude one another.

    A column of `rivals` (sets of rival families x pairs) is a pair, a row one set. From each set at least `least` pairs
    are chosen, and at most one.
    """

    pairs: tuple[tuple[int, int], ...]
    rivals: csr_array
    least: tuple[int, ...]


def offer_of(problem: Problem, allowed: Sequence[Sequence[int]]) -> Offer:
    choices = problem.database.choices
    pairs = tuple((number, size) for number, sizes in enumerate(allowed) for size in sizes)
    sets = rival_sets(problem.database)
    ends = np.cumsum([0, *map(len, allowed)])
    spans = [
        (row, np.arange(ends[number], ends[number + 1])) for row, rivals in enumerate(sets) for number in sorted(rivals)
    ]
    columns = np.concatenate([np.arange(0), *(span for _, span in spans)])
    rows = np.repeat([row for row, _ in spans], [len(span) for _, span in spans])
    never_dense = [choice.fixed is not None or not choice.dense for choice in choices]
    crowded = _crowded(problem)
    least = tuple(int(rivals in crowded or all(never_dense[number] for number in rivals)) for rivals in sets)
    return Offer(pairs, csr_array((np.ones(len(columns)), (rows, columns)), shape=(len(sets), len(pairs))), least)


def _crowded(problem: Problem) -> set[frozenset[int]]:
    """The sets of rivals with a layer that the limit of memory forbids to stay dense."""
    if problem.peak is None:
        return set()
    forbidden = problem.peak.forbids_dense
    return {rivals for name, rivals in _rivals_of(problem.database).items() if forbidden(name)}


def _rivals_of(database: Database) -> dict[str, frozenset[int]]:
    """By layer: the families that compete for it, by number."""
    of_layer: dict[str, set[int]] = {}
    for number, choice in enumerate(database.choices):
        for name in choice.family.members:
            of_layer.setdefault(name, set()).add(number)
    return {name: frozenset(rivals) for name, rivals in of_layer.items()}


def rival_sets(database: Database) -> list[frozenset[int]]:
    """The sets of families that compete for the same layer; most sets hold one family."""
    return sorted(set(_rivals_of(database).values()), key=sorted)


def least_of(problem: Problem, row: Row, allowed: Sequence[Sequence[int]], others: Sequence[Row] = ()) -> Sizes | None:
    """The plan with the least of a row, with `others` within their amounts; None if there is none."""
    if not others:
        pairs = [[(row.price(number, size), size) for size in sizes] for number, sizes in enumerate(allowed)]
        allowed = [[min(own)[1]] if own else [] for own in pairs]
    offer = offer_of(problem, allowed)
    nothing = (None,) * len(problem.database.choices)
    bounds = [([own.price(*pair) for pair in offer.pairs], own.amount - own.total(nothing)) for own in others]
    return best_choice(problem.database, offer, [row.price(*pair) for pair in offer.pairs], bounds)


def any_plan(problem: Problem, allowed: Sequence[Sequence[int]]) -> Sizes | None:
    """Any plan within the limit of memory."""
    offer = offer_of(problem, allowed)
    return best_choice(problem.database, offer, [0.0] * len(offer.pairs))


def best_choice(
    database: Database,
    offer: Offer,
    losses: Sequence[float],
    limits: Sequence[tuple[Sequence[float], int]] = (),
) -> Sizes | None:
    """The choice with the least sum of `losses`; with each of `limits` = (prices, room), a sum of prices in the room.

    None if there is no such choice.
    """
    if not offer.pairs:
        possible = not any(offer.least) and all(room >= 0 for _, room in limits)
        return (None,) * len(database.choices) if possible else None
    constraints = [LinearConstraint(offer.rivals, offer.least, 1)]
    for prices, room in limits:
        scale = max(abs(room), 1)
        constraints.append(LinearConstraint(np.array([prices]) / scale, -np.inf, room / scale))
    result = milp(
        np.array(losses) / max(np.abs(losses).max(), 1e-300),
        integrality=np.ones(len(offer.pairs)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if limits else 0.0, "time_limit": 2},
    )
    if result.x is None:
        return None
    chosen = dict(offer.pairs[column] for column in np.flatnonzero(result.x > 0.5))
    return tuple(chosen.get(number) for number in range(len(database.choices)))
