"""Choose the size of every family under a budget: a multiple-choice knapsack. No torch, no model.

Every family gets one size (rank) or stays dense. Families of different schemes may compete for a layer: at most one of
them is chosen. The sum of the predicted errors is minimal; parameters, MACs, file bytes or time stay within the budget,
and flash, latency and peak memory within the limits of a device. HiGHS (scipy.optimize.milp) solves the problem over a
grid of sizes; single steps then spend what is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...core.choices import Choice, Database
from ...core.errors import PlanError
from ...core.specs import Plan, product, required
from ...inputs.recipe import inclusion
from .budget import PlanBudget, amount_of
from .costs import (
    Sizes,
    family_tensors,
    original_totals,
    planned_totals,
    predicted_error,
    predicted_errors,
    total_cost,
)
from .limits import FLAGS, BoardLimits, SumLimit, shown
from .nearest import conflict, impossible
from .offers import Problem, Row, any_plan, best_choice, least_of, offer_of, rival_sets
from .prices import Prices

# The most sizes of one family among which the knapsack chooses.
GRID = 48
# Bytes below a budget from which on the file's header is counted exactly: its offsets may take a digit more.
NEAR = 64


def solve(
    database: Database,
    budget: PlanBudget | None,
    limits: BoardLimits | None = None,
    prices: Prices | None = None,
) -> Plan:
    """Choose the plan with the least predicted error within the budget and the limits of a device.

    Args:
        database: The families with their layouts and predicted errors.
        budget: None: without limits, the sizes that the recipe sets.
        limits: Those of a device, with what every size of `database` takes of it.
        prices: Those of `database` in the unit of the budget, for several plans.

    Raises:
        PlanError: KD501 if even the smallest plan is over the budget or a limit (the message gives its size), or if no
            plan keeps all of them; KD504 if neither these nor the recipe set the size of a family.
    """
    if budget is None and (limits is None or not limits.decides):
        for rivals in rival_sets(database):
            if len(rivals) > 1:  # only a budget decides between them
                contested = database.choices[min(rivals)]
                raise no_goal(contested.family.members[0], contested.size)
        return plan_of(database, tuple(map(_size_of_recipe, database.choices)), limits)
    grids = [_grid(choice) for choice in database.choices]
    rows = [] if budget is None else [_budget_row(database, budget, prices or Prices(database, budget.kind))]
    peak = None
    if limits is not None:
        peak = limits.peak
        peak.require_reachable(database.choices, grids)
        rows += [_limit_row(database, limit) for limit in limits.sums if limit.allowed is not None]
    problem = Problem(database, tuple(rows), tuple(map(tuple, grids)), peak)
    return plan_of(database, _spend(problem, _within(problem)), limits)


def plan_of(database: Database, sizes: Sizes, limits: BoardLimits | None = None) -> Plan:
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
        board=None if limits is None else limits.use(database.choices, sizes),
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


def least_total(database: Database, prices: Prices) -> int:
    """The cost of the smallest plan, in the unit of `prices`.

    Raises:
        PlanError: KD501 if the families overlap so that there is no plan at all.
    """
    row = _budget_row(database, PlanBudget(prices.kind, 0), prices)
    problem = Problem(database, (row,), tuple(tuple(_grid(choice)) for choice in database.choices))
    least = least_of(problem, row, problem.allowed)
    if least is None:
        raise impossible(problem)
    return row.total(least)


def _budget_row(database: Database, budget: PlanBudget, prices: Prices) -> Row:
    return Row(
        budget.amount,
        prices.price,
        lambda sizes: total_cost(database, sizes, budget.kind),
        f"a budget of {amount_of(budget.kind, budget.amount)}",
        lambda least: _unreachable(database, budget, least),
        lambda amount: amount_of(budget.kind, amount),
        adds_up=budget.kind != "bytes",  # the header has as many digits as the sizes
    )


def _limit_row(database: Database, limit: SumLimit) -> Row:
    amount = required(limit.allowed)
    within = f"{FLAGS[limit.name]} {shown(limit.name, amount)}"

    def refusal(least: int) -> PlanError:
        most = f"the least {limit.name} that this recipe can make is {shown(limit.name, least)}"
        whole = f"the original has {shown(limit.name, limit.dense)}"
        return PlanError("KD501", f"{within} cannot be met; {most}, {whole}{inclusion(database.layers)}")

    return Row(amount, limit.extra, limit.used, within, refusal, lambda number: shown(limit.name, number))


def _within(problem: Problem) -> Sizes:
    """Solve with additive costs, and lower the bounds until the exact costs fit: the file's header is not additive."""
    allowed = problem.allowed
    smallest = [least_of(problem, row, allowed) for row in problem.rows]
    if any(sizes is None for sizes in smallest) or (not problem.rows and any_plan(problem, allowed) is None):
        raise impossible(problem)
    rooms = []
    for row, least in zip(problem.rows, map(required, smallest), strict=True):
        if row.total(least) > row.amount:
            raise _refusal(problem, row, row.total(least))
        rooms.append(row.amount - row.total(least) + row.additive(least))
    offer = offer_of(problem, allowed)
    each = zip(problem.database.choices, allowed, strict=True)  # in the order of the offer
    errors = [error for choice, sizes in each for error in predicted_errors(choice, sizes)]
    prices = [[row.price(*pair) for pair in offer.pairs] for row in problem.rows]
    for _ in range(20):
        sizes = best_choice(problem.database, offer, errors, list(zip(prices, rooms, strict=True)))
        if sizes is None:
            break
        excesses = [row.total(sizes) - row.amount for row in problem.rows]
        if max(excesses, default=0) <= 0:
            return sizes
        for place, excess in enumerate(excesses):
            if excess > 0:
                rooms[place] = problem.rows[place].additive(sizes) - excess  # excludes this solution
    kept = [least for least in smallest if least and all(row.total(least) <= row.amount for row in problem.rows)]
    if not kept:
        raise conflict(problem)
    return kept[0]


def _refusal(problem: Problem, row: Row, least: int) -> PlanError:
    """The error for a row whose least is above its amount, alone or because of the limit of memory."""
    alone = least_of(replace(problem, peak=None), row, problem.grids)
    if alone is not None and row.total(alone) <= row.amount:
        return conflict(problem)
    return row.refusal(least if alone is None else row.total(alone))


def _spend(problem: Problem, sizes: Sizes) -> Sizes:
    """Raise sizes one by one, the best value first, while the exact costs stay within the budget and the limits.

    Far from its amount, a row whose total does not quite add up is added up: its total takes a hundred times as long.
    """
    raised = _raised(problem, sizes, near=NEAR)
    if all(row.adds_up or row.total(raised) <= row.amount for row in problem.rows):
        return raised
    return _raised(problem, sizes, near=max(row.amount for row in problem.rows))


def _raised(problem: Problem, sizes: Sizes, near: int) -> Sizes:
    """Raise sizes. The totals are exact in all rows that add up, and in others within `near` of their amounts."""
    database, rows = problem.database, problem.rows
    chosen, spent = list(sizes), [row.total(sizes) for row in rows]

    def step(number: int) -> tuple[float, list[int]] | None:
        """The error that one step more saves per unit of cost, and its costs; None if the family cannot be raised."""
        choice, size = database.choices[number], chosen[number]
        if size is None or choice.fixed is not None or size >= choice.limit or not problem.allows(number, size + 1):
            return None
        costs = [row.price(number, size + 1) - row.price(number, size) for row in rows]
        saved = predicted_error(choice, size) - predicted_error(choice, size + 1)
        parts = [max(cost, 1) / max(row.amount, 1) for cost, row in zip(costs, rows, strict=True)]
        return saved / (sum(parts) if len(rows) > 1 else max([1, *costs])), costs

    steps = {number: value for number in range(len(chosen)) if (value := step(number))}
    while steps:
        best = max(steps, key=lambda number: steps[number][0])
        _, costs = steps.pop(best)
        trial = (*chosen[:best], (chosen[best] or 0) + 1, *chosen[best + 1 :])
        sums = zip(rows, spent, costs, strict=True)
        totals = [
            before + cost if row.adds_up or before + cost + near <= row.amount else row.total(trial)
            for row, before, cost in sums
        ]
        if all(before <= after <= row.amount for row, before, after in zip(rows, spent, totals, strict=True)):
            chosen, spent = list(trial), totals
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
        f"{routing}{'' if budget.kind == 'latency' else inclusion(database.layers)}",
    )
