"""A budget and a database become a plan: the multiple-choice knapsack over families and ranks. No torch, no model.

Every family is taken at one size (rank) or not at all, and of families that want the same layer, those of several
schemes, one at most is taken; a layer of none stays dense. The predicted errors add up; parameters, multiply-adds or
the bytes of the file must not exceed the budget. HiGHS (scipy.optimize.milp) solves it over a grid of sizes, then
single steps spend what is left. Sizes are exact: they come from the layouts, the file's from its header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ...core.errors import PlanError
from ...core.filesize import data_size, file_size
from ...core.specs import (
    Choice,
    Database,
    Family,
    Layer,
    Layout,
    Plan,
    Shape,
    SymbolicShape,
    TensorSpec,
    Totals,
    product,
)

Kind = Literal["params", "bytes", "macs"]
# The size of each family's option, in the database's order; None for a family that is not taken.
Sizes = tuple[int | None, ...]

GRID = 48
_DENSE_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Budget:
    """At most `amount` of what `kind` counts: parameters of the net, bytes of its file, multiply-adds of an image."""

    kind: Kind
    amount: int


def solve(database: Database, budget: Budget | None) -> Plan:
    """The plan of least predicted error within the budget; without one, the recipe's own sizes.

    Raises PlanError: KD501 when even the smallest plan is larger, naming it; KD504 when neither budget nor recipe
    says how large a family shall be.
    """
    if budget is None:
        for among in _rivals(database):
            if len(among) > 1:  # which of them it shall be, only a budget says
                contested = database.choices[min(among)]
                raise no_goal(contested.family.members[0], contested.size)
        return plan_of(database, tuple(map(_insisted, database.choices)))
    allowed = [_grid(choice) for choice in database.choices]
    sizes = _within(database, budget, allowed)
    return plan_of(database, _spend(database, budget, sizes))


def plan_of(database: Database, sizes: Sizes) -> Plan:
    """The plan that takes these sizes, whatever they cost."""
    families, predicted, stored = [], {}, {}
    dense = {name for choice in database.choices for name in choice.family.members}
    for choice, size in zip(database.choices, sizes, strict=True):
        if size is None:
            continue
        dense -= set(choice.family.members)
        families.append(replace(choice.family, options={**choice.family.options, choice.size: size}))
        stored[choice.family.members[0]] = sum(product(spec.shape) for spec in _specs(database, choice, size))
        if choice.points:
            predicted[choice.family.members[0]] = predicted_error(choice, size)
    layers = tuple(replace(layer, reason="KD114") if layer.name in dense else layer for layer in database.layers)
    before, after = original_totals(database), _totals(database, sizes)
    return Plan(
        database.model,
        tuple(families),
        layers,
        before,
        after,
        predicted,
        stored,
        routes=database.routes,
        routed=database.gate_params,
        unrouted=database.unrouted,
        seed=database.seed,
    )


def predicted_error(choice: Choice, size: int | None) -> float:
    """The weighted output error at a size: a power of it between measured points and beyond the last; 0 when dense."""
    if size is None or not choice.points:
        return 0.0
    known = sorted(choice.points)
    logs = [math.log(max(choice.points[point], 1e-300)) for point in known]
    places = [math.log1p(point) for point in known]
    if len(known) > 1 and size > known[-1]:
        slope = (logs[-1] - logs[-2]) / (places[-1] - places[-2])
        return math.exp(logs[-1] + slope * (math.log1p(size) - places[-1]))
    return math.exp(float(np.interp(math.log1p(size), places, logs)))


def stored_tensors(family: Family, layout: Layout, dtype: str) -> list[TensorSpec]:
    """What a family keeps in the file. A tensor without elements is not stored."""
    owner = family.members[0]
    parts = [(owner, layout.shared), *zip(family.members, layout.adapters, strict=True)]
    named = [
        TensorSpec(f"{name}.{letter}", _resolve(shape, family), "I16" if letter in layout.indices else dtype)
        for name, part in parts
        for letter, shape in part.items()
    ]
    return [spec for spec in named if product(spec.shape)]


def _resolve(shape: SymbolicShape, family: Family) -> Shape:
    return tuple(int(family.options[axis]) if isinstance(axis, str) else axis for axis in shape)


def _insisted(choice: Choice) -> int | None:
    size = choice.fixed if choice.fixed is not None else choice.smallest
    if choice.fixed is None and choice.smallest > 0:
        raise no_goal(choice.family.members[0], choice.size)
    return size


def no_goal(layer: str, size: str) -> PlanError:
    """Neither a budget nor the recipe says how large the family of this layer shall be."""
    ways_out = f"pass --target-params 0.5, or set options.{size}"
    return PlanError("KD504", f"no budget, and the recipe gives no {size} to the family of {layer}; {ways_out}")


def _grid(choice: Choice) -> list[int]:
    """The sizes that the knapsack chooses from: all of them, or a geometric grid."""
    if choice.fixed is not None:
        return [choice.fixed]
    low, high = choice.smallest, choice.limit
    steps = range(low, high + 1) if high - low < GRID else (low + np.geomspace(1, high - low + 1, GRID).round() - 1)
    return sorted({int(step) for step in steps})


@dataclass(frozen=True)
class _Offer:
    """Families at sizes that can be taken: by the place of each in the database, and in `once` by the sets of rivals
    that it is of. Of each set at least `least` are taken, and at most one."""

    taken: tuple[tuple[int, int], ...]
    once: csr_array
    least: tuple[int, ...]


def _within(database: Database, budget: Budget, allowed: Sequence[list[int]]) -> Sizes:
    """Solve on the additive cost, and tighten until the exact cost fits: a file's header is not quite additive."""

    def price(index: int, size: int) -> int:
        return _more(database, database.choices[index], size, budget.kind)

    cheapest = _offer(
        database,
        [
            [min(sizes, key=lambda size, index=index: price(index, size))]  # type: ignore[misc]
            for index, sizes in enumerate(allowed)
        ],
    )
    smallest = _best(database, cheapest, [price(*one) for one in cheapest.taken])
    if smallest is None:
        raise PlanError("KD501", "no choice of families leaves every layer in one of them at most")
    least = _exact(database, smallest, budget.kind)
    if least > budget.amount:
        raise PlanError("KD501", f"{_said(database, budget, budget.amount)}; {_least(database, budget, least)}")

    def additive(sizes: Sizes) -> int:
        return sum(price(index, size) for index, size in enumerate(sizes) if size is not None)

    offer = _offer(database, allowed)
    errors = [predicted_error(database.choices[index], size) for index, size in offer.taken]
    prices = [price(*one) for one in offer.taken]
    room = budget.amount - least + additive(smallest)
    for _ in range(20):
        sizes = _best(database, offer, errors, (prices, room))
        if sizes is None:
            return smallest
        excess = _exact(database, sizes, budget.kind) - budget.amount
        if excess <= 0:
            return sizes
        room = additive(sizes) - excess  # so that it is not found again
    return smallest


def _offer(database: Database, allowed: Sequence[list[int]]) -> _Offer:
    taken = tuple((index, size) for index, sizes in enumerate(allowed) for size in sizes)
    sets = _rivals(database)
    rows_of = [[row for row, among in enumerate(sets) if index in among] for index in range(len(allowed))]
    pairs = [(row, place) for place, (index, _) in enumerate(taken) for row in rows_of[index]]
    rows, places = zip(*pairs, strict=True) if pairs else ((), ())
    held = [choice.fixed is not None or not choice.dense for choice in database.choices]
    least = tuple(int(all(held[index] for index in among)) for among in sets)
    return _Offer(taken, csr_array((np.ones(len(pairs)), (rows, places)), shape=(len(sets), len(taken))), least)


def _best(
    database: Database, offer: _Offer, losses: Sequence[float], limit: tuple[Sequence[float], int] | None = None
) -> Sizes | None:
    """What to take at the least sum of `losses`; with a `limit`, of (prices, room), at prices that fit into the room.

    None where there is no such choice.
    """
    if not offer.taken:
        return (None,) * len(database.choices)
    constraints = [LinearConstraint(offer.once, offer.least, 1)]
    if limit is not None:
        prices, room = limit
        scale = max(abs(room), 1)
        constraints.append(LinearConstraint(np.array([prices]) / scale, -np.inf, room / scale))
    found = milp(
        np.array(losses) / max(np.abs(losses).max(), 1e-300),
        integrality=np.ones(len(offer.taken)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if limit else 0.0, "time_limit": 2},
    )
    if found.x is None:
        return None
    chosen = dict(offer.taken[place] for place in np.flatnonzero(found.x > 0.5))
    return tuple(chosen.get(index) for index in range(len(database.choices)))


def _rivals(database: Database) -> list[frozenset[int]]:
    """The sets of families that want the same layer, by their places; most are of one family."""
    wanting: dict[str, set[int]] = {}
    for index, choice in enumerate(database.choices):
        for name in choice.family.members:
            wanting.setdefault(name, set()).add(index)
    return sorted({frozenset(among) for among in wanting.values()}, key=sorted)


def _more(database: Database, choice: Choice, size: int, kind: Kind) -> int:
    """What a family costs more than its dense layers do."""
    return _cost(database, choice, size, kind) - _cost(database, choice, None, kind)


def _spend(database: Database, budget: Budget, sizes: Sizes) -> Sizes:
    """Raise sizes one by one, the best buy first, while the exact cost stays within the budget."""
    chosen, spent = list(sizes), _exact(database, sizes, budget.kind)

    def step(index: int) -> tuple[float, int] | None:
        """The error that one more buys per unit, and its price; None for a family that cannot be raised."""
        choice, size = database.choices[index], chosen[index]
        if size is None or choice.fixed is not None or size >= choice.limit:
            return None
        price = _cost(database, choice, size + 1, budget.kind) - _cost(database, choice, size, budget.kind)
        return (predicted_error(choice, size) - predicted_error(choice, size + 1)) / max(price, 1), price

    steps = {index: found for index in range(len(chosen)) if (found := step(index))}
    while steps:
        best = max(steps, key=lambda index: steps[index][0])
        _, price = steps.pop(best)
        trial = (*chosen[:best], (chosen[best] or 0) + 1, *chosen[best + 1 :])
        cost = _exact(database, trial, "bytes") if budget.kind == "bytes" else spent + price
        if spent < cost <= budget.amount:
            chosen, spent = list(trial), cost
            if again := step(best):
                steps[best] = again
    return tuple(chosen)


def _cost(database: Database, choice: Choice, size: int | None, kind: Kind) -> int:
    """What one family adds, alone. Exact for parameters and multiply-adds, to a few bytes for the file."""
    if kind == "macs":
        return _macs(choice, size)
    specs = _specs(database, choice, size)
    if kind == "params":
        return sum(product(spec.shape) for spec in specs)
    return sum(data_size(spec) + _line(spec) for spec in specs)


def _exact(database: Database, sizes: Sizes, kind: Kind) -> int:
    return int(getattr(_totals(database, sizes), kind))


def _totals(database: Database, sizes: Sizes) -> Totals:
    pairs = list(zip(database.choices, sizes, strict=True))
    replaced = {f"{name}.weight" for choice, size in pairs if size is not None for name in choice.family.members}
    kept = [spec for spec in database.tensors if spec.name not in replaced]
    stored = [spec for choice, size in pairs if size is not None for spec in _specs(database, choice, size)]
    removed = sum(product(spec.shape) for spec in database.tensors if spec.name in replaced)
    params = database.params - removed + sum(product(spec.shape) for spec in stored) + database.gate_params
    macs = database.macs + sum(_macs(choice, size) - _macs(choice, None) for choice, size in pairs)
    return Totals(params, file_size([*kept, *stored, *database.gates], database.metadata), macs + database.gate_macs)


def original_totals(database: Database) -> Totals:
    """What the original net comes to."""
    return Totals(database.params, file_size(database.tensors, _DENSE_METADATA), database.macs)


def _specs(database: Database, choice: Choice, size: int | None) -> list[TensorSpec]:
    """The tensors of one family in the file."""
    if size is None:
        shapes = _by_name(database)
        return [TensorSpec(f"{name}.weight", shapes[name].shape, choice.dtype) for name in choice.family.members]
    family = replace(choice.family, options={**choice.family.options, choice.size: size})
    return stored_tensors(family, choice.layout, choice.dtype)


def _macs(choice: Choice, size: int | None) -> int:
    if size is None:
        return sum(member.dense for member in choice.macs)
    factored = (
        (member.each + member.squared * size) * size if size <= member.factored_up_to else member.dense
        for member in choice.macs
    )
    return sum(factored)


def _by_name(database: Database) -> Mapping[str, Layer]:
    return _index(database.layers)


@cache
def _index(layers: tuple[Layer, ...]) -> Mapping[str, Layer]:
    return {layer.name: layer for layer in layers}


def _line(spec: TensorSpec) -> int:
    """Bytes that a tensor takes in the header, its offsets taken as seven digits each."""
    offsets = [1_000_000, 1_000_000]
    entry = {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}}
    return len(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()) - 1


_UNITS: dict[Kind, str] = {"params": "parameters", "bytes": "bytes", "macs": "multiply-adds"}


def _said(database: Database, budget: Budget, amount: int) -> str:
    return f"a budget of {amount:,} {_UNITS[budget.kind]} ({_share(database, budget.kind)(amount)}) cannot be met"


def _least(database: Database, budget: Budget, least: int) -> str:
    routing = f", with the {database.gate_params:,} parameters of its routing" if database.gate_params else ""
    return f"the smallest that this recipe can make is {least:,} ({_share(database, budget.kind)(least)}){routing}"


def _share(database: Database, kind: Kind) -> Callable[[int], str]:
    whole = getattr(original_totals(database), kind)
    return lambda amount: f"{amount / max(whole, 1):.2%} of the net's"
