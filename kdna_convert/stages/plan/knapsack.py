"""Choose the size of every family under a budget: a multiple-choice knapsack. No torch, no model.

Every family gets one size (rank) or stays dense. Families of different schemes may compete for a layer: at most one of
them is chosen. The sum of the predicted errors is minimal; parameters, MACs, file bytes or time stay within the budget.
HiGHS (scipy.optimize.milp) solves the problem over a grid of sizes; single steps then spend what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ...core.choices import Choice, Database
from ...core.errors import PlanError
from ...core.specs import Plan, product
from ...inputs.recipe import inclusion
from .budget import PlanBudget, amount_of
from .costs import (
    Sizes,
    family_cost,
    family_tensors,
    original_totals,
    planned_totals,
    predicted_error,
    total_cost,
)

# The most sizes of one family among which the knapsack chooses.
GRID = 48


def solve(database: Database, budget: PlanBudget | None) -> Plan:
    """Choose the plan with the least predicted error within the budget.

    Args:
        database: The families with their layouts and predicted errors.
        budget: None: the sizes that the recipe sets.

    Raises:
        PlanError: KD501 if even the smallest plan is over the budget (the message gives its size), KD504 if neither the
            budget nor the recipe sets the size of a family.
    """
    if budget is None:
        for rivals in _rival_sets(database):
            if len(rivals) > 1:  # only a budget decides between them
                contested = database.choices[min(rivals)]
                raise no_goal(contested.family.members[0], contested.size)
        return plan_of(database, tuple(map(_size_of_recipe, database.choices)))
    sizes = _within(database, budget, [_grid(choice) for choice in database.choices])
    return plan_of(database, _spend(database, budget, sizes))


def plan_of(database: Database, sizes: Sizes) -> Plan:
    """The plan with these sizes, at any cost."""
    families, predicted, stored = [], {}, {}
    dense = {name for choice in database.choices for name in choice.family.members}
    for choice, size in zip(database.choices, sizes, strict=True):
        if size is None:
            continue
        dense -= set(choice.family.members)
        families.append(replace(choice.family, options={**choice.family.options, choice.size: size}))
        owner = choice.family.members[0]
        stored[owner] = sum(product(spec.shape) for spec in family_tensors(database, choice, size))
        if choice.points:
            predicted[owner] = predicted_error(choice, size)
    return Plan(
        model=database.model,
        families=tuple(families),
        layers=tuple(replace(one, reason="KD114") if one.name in dense else one for one in database.layers),
        original=original_totals(database),
        planned=planned_totals(database, sizes),
        predicted=predicted,
        stored=stored,
        routes=database.routes,
        routed=database.gate_params,
        unrouted=database.unrouted,
        seed=database.seed,
        timed=database.timed,
    )


def no_goal(layer: str, size: str) -> PlanError:
    """The error if neither a budget nor the recipe sets the size of the family of this layer."""
    ways_out = f"pass --target-params 0.5, or set options.{size}"
    return PlanError("KD504", f"no budget, and the recipe gives no {size} to the family of {layer}; {ways_out}")


def _size_of_recipe(choice: Choice) -> int | None:
    if choice.fixed is None and choice.smallest > 0:
        raise no_goal(choice.family.members[0], choice.size)
    return choice.fixed if choice.fixed is not None else choice.smallest


def _grid(choice: Choice) -> list[int]:
    """The sizes among which the knapsack chooses: all of them, or a geometric grid."""
    if choice.fixed is not None:
        return [choice.fixed]
    low, high = choice.smallest, choice.limit
    steps = range(low, high + 1) if high - low < GRID else (low + np.geomspace(1, high - low + 1, GRID).round() - 1)
    return sorted({int(step) for step in steps})


@dataclass(frozen=True)
class _Offer:
    """The pairs (family, size) among which the knapsack chooses, and which of them exclude one another.

    A column of `rivals` (sets of rival families x pairs) is a pair, a row one set. From each set at least `least` pairs
    are chosen, and at most one.
    """

    pairs: tuple[tuple[int, int], ...]
    rivals: csr_array
    least: tuple[int, ...]


def _offer(database: Database, allowed: Sequence[list[int]]) -> _Offer:
    pairs = tuple((index, size) for index, sizes in enumerate(allowed) for size in sizes)
    sets = _rival_sets(database)
    rows_of = [[row for row, rivals in enumerate(sets) if index in rivals] for index in range(len(allowed))]
    entries = [(row, column) for column, (index, _) in enumerate(pairs) for row in rows_of[index]]
    rows, columns = zip(*entries, strict=True) if entries else ((), ())
    never_dense = [choice.fixed is not None or not choice.dense for choice in database.choices]
    least = tuple(int(all(never_dense[index] for index in rivals)) for rivals in sets)
    return _Offer(pairs, csr_array((np.ones(len(entries)), (rows, columns)), shape=(len(sets), len(pairs))), least)


def _rival_sets(database: Database) -> list[frozenset[int]]:
    """The sets of families that compete for the same layer, by index; most sets hold one family."""
    of_layer: dict[str, set[int]] = {}
    for index, choice in enumerate(database.choices):
        for name in choice.family.members:
            of_layer.setdefault(name, set()).add(index)
    return sorted({frozenset(rivals) for rivals in of_layer.values()}, key=sorted)


def _within(database: Database, budget: PlanBudget, allowed: Sequence[list[int]]) -> Sizes:
    """Solve with additive costs, and lower the bound until the exact cost fits: the file's header is not additive."""

    def price(index: int, size: int) -> int:
        """What a family costs more than its dense layers."""
        choice = database.choices[index]
        dense = family_cost(database, choice, None, budget.kind)
        return family_cost(database, choice, size, budget.kind) - dense

    def additive(sizes: Sizes) -> int:
        return sum(price(index, size) for index, size in enumerate(sizes) if size is not None)

    cheapest = [[min(sizes, key=lambda size, index=index: price(index, size))] for index, sizes in enumerate(allowed)]  # type: ignore[misc]
    offer = _offer(database, cheapest)
    smallest = _best(database, offer, [price(*pair) for pair in offer.pairs])
    if smallest is None:
        raise PlanError("KD501", "the families overlap so that no choice has every layer in one family at most")
    least = total_cost(database, smallest, budget.kind)
    if least > budget.amount:
        raise _unreachable(database, budget, least)
    offer = _offer(database, allowed)
    errors = [predicted_error(database.choices[index], size) for index, size in offer.pairs]
    prices = [price(*pair) for pair in offer.pairs]
    room = budget.amount - least + additive(smallest)
    for _ in range(20):
        sizes = _best(database, offer, errors, (prices, room))
        if sizes is None:
            return smallest
        excess = total_cost(database, sizes, budget.kind) - budget.amount
        if excess <= 0:
            return sizes
        room = additive(sizes) - excess  # excludes this solution
    return smallest


def _best(
    database: Database, offer: _Offer, losses: Sequence[float], limit: tuple[Sequence[float], int] | None = None
) -> Sizes | None:
    """The choice with the least sum of `losses`; with `limit` = (prices, room), at a sum of prices within the room.

    None if there is no such choice.
    """
    if not offer.pairs:
        return (None,) * len(database.choices)
    constraints = [LinearConstraint(offer.rivals, offer.least, 1)]
    if limit is not None:
        prices, room = limit
        scale = max(abs(room), 1)
        constraints.append(LinearConstraint(np.array([prices]) / scale, -np.inf, room / scale))
    result = milp(
        np.array(losses) / max(np.abs(losses).max(), 1e-300),
        integrality=np.ones(len(offer.pairs)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if limit else 0.0, "time_limit": 2},
    )
    if result.x is None:
        return None
    chosen = dict(offer.pairs[column] for column in np.flatnonzero(result.x > 0.5))
    return tuple(chosen.get(index) for index in range(len(database.choices)))


def _spend(database: Database, budget: PlanBudget, sizes: Sizes) -> Sizes:
    """Raise sizes one by one, the best value first, while the exact cost stays within the budget."""
    chosen, spent = list(sizes), total_cost(database, sizes, budget.kind)

    def step(index: int) -> tuple[float, int] | None:
        """The error that one step more saves per unit of cost, and its cost; None if the family cannot be raised."""
        choice, size = database.choices[index], chosen[index]
        if size is None or choice.fixed is not None or size >= choice.limit:
            return None
        before, after = (family_cost(database, choice, number, budget.kind) for number in (size, size + 1))
        saved = predicted_error(choice, size) - predicted_error(choice, size + 1)
        return saved / max(after - before, 1), after - before

    steps = {index: value for index in range(len(chosen)) if (value := step(index))}
    while steps:
        best = max(steps, key=lambda index: steps[index][0])
        _, price = steps.pop(best)
        trial = (*chosen[:best], (chosen[best] or 0) + 1, *chosen[best + 1 :])
        cost = total_cost(database, trial, "bytes") if budget.kind == "bytes" else spent + price
        if spent <= cost <= budget.amount:
            chosen, spent = list(trial), cost
            if again := step(best):
                steps[best] = again
    return tuple(chosen)


def _unreachable(database: Database, budget: PlanBudget, least: int) -> PlanError:
    """The error for a budget below the smallest plan, with the size of that plan."""
    whole = max(getattr(original_totals(database), budget.kind), 1)
    routing = f", with the {database.gate_params:,} parameters of its routing" if database.gate_params else ""
    share = f"{budget.amount / whole:.2%} of the net's"
    return PlanError(
        "KD501",
        f"a budget of {amount_of(budget.kind, budget.amount)} ({share}) cannot be met; the smallest that this recipe "
        f"can make is {amount_of(budget.kind, least)} ({least / whole:.2%} of the net's)"
        f"{routing}{inclusion(database.layers)}",
    )
