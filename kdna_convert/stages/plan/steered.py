"""Solve the plan of any budget with edits, and tell what an edit costs. Nothing here raises for a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...core.choices import Database
from ...core.errors import PlanError
from ...core.specs import Plan
from .budget import Kind, PlanBudget
from .costs import original_totals
from .edits import Edit, with_edits
from .knapsack import least_total, solve
from .prices import Prices


@dataclass(frozen=True)
class BudgetAnswer:
    """What a budget gives: a plan, or why there is none.

    Attributes:
        plan: The plan with the least predicted error.
        problem: Why there is none.
    """

    plan: Plan | None
    problem: str | None = None


@dataclass(frozen=True)
class Steered:
    """A database with edits, from which any budget is solved. Use `steered` to make one."""

    database: Database
    edits: tuple[Edit, ...] = ()
    prices: dict[Kind, Prices] = field(default_factory=dict)

    def prices_of(self, kind: Kind) -> Prices:
        return self.prices.setdefault(kind, Prices(self.database, kind))


def steered(database: Database, edits: Sequence[Edit] = ()) -> Steered:
    """The database with edits. Raises PlanError KD514 as `with_edits`."""
    return Steered(with_edits(database, edits), tuple(edits))


def kinds_of(database: Database, coded: bool) -> tuple[Kind, ...]:
    """The kinds of budget that a plan can have: bytes where no codec meets them, time where it was measured."""
    bytes_: tuple[Kind, ...] = () if coded else ("bytes",)
    latency: tuple[Kind, ...] = () if database.latency is None else ("latency",)
    return ("params", *bytes_, "macs", *latency)


def bounds_of(at: Steered, kind: Kind) -> tuple[int, int]:
    """The least amount that has a plan, and the original's. They are equal where there is no plan at all."""
    whole = int(getattr(original_totals(at.database), kind))
    least = least_of(at, kind)
    return whole if least is None else min(least, whole), whole


def least_of(at: Steered, kind: Kind) -> int | None:
    """The least amount that has a plan, which may be more than the original's; None if there is no plan at all."""
    try:
        return least_total(at.database, at.prices_of(kind))
    except PlanError:
        return None


def answer(at: Steered, budget: PlanBudget) -> BudgetAnswer:
    """The plan of a budget, or why there is none."""
    try:
        return BudgetAnswer(solve(at.database, budget, prices=at.prices_of(budget.kind)))
    except PlanError as error:
        return BudgetAnswer(None, error.message)


def without(at: Steered, database: Database, place: int) -> Steered:
    """The same without the edit at this place. `database` is the one without any edit."""
    return steered(database, (*at.edits[:place], *at.edits[place + 1 :]))
