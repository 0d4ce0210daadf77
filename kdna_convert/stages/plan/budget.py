"""Budgets: what a plan may cost, in parameters, file bytes or MACs. A new kind of budget begins here.

`KINDS` names the kinds. costs.py computes what a choice of sizes costs in each, knapsack.py keeps within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...core.errors import PlanError
from ...core.specs import Totals
from ...inputs.recipe import Recipe, parse_count, parse_target

Kind = Literal["params", "bytes", "macs"]
# Each kind and its unit in messages. The kinds are the fields of core.specs.Totals.
KINDS: dict[Kind, str] = {"params": "parameters", "bytes": "bytes", "macs": "multiply-adds"}


@dataclass(frozen=True)
class PlanBudget:
    """At most `amount` of `kind`: parameters of the net, bytes of its file, or MACs per image."""

    kind: Kind
    amount: int


def budget_of(
    original: Totals,
    recipe: Recipe,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    target_macs: float | str | None = None,
) -> PlanBudget | None:
    """The target, or else the recipe's budget, in whole units. Targets up to 1 are shares of the `original` net.

    Returns:
        None if neither is given: the recipe sets every size itself.

    Raises:
        PlanError: KD506 for two targets, or for one that is no size or share.
    """
    targets: dict[Kind, float | str | None] = {"params": target_params, "bytes": target_bytes, "macs": target_macs}
    given = {kind: value for kind, value in targets.items() if value is not None}
    if not given and recipe.budget is not None:
        given = {kind: value for kind in KINDS if (value := getattr(recipe.budget, kind)) is not None}
    if not given:
        return None
    if len(given) > 1:
        raise PlanError("KD506", f"give one budget, not {len(given)} ({', '.join(given)})")
    ((kind, value),) = given.items()
    parse = parse_target if kind == "bytes" else parse_count
    return PlanBudget(kind, parse(value, getattr(original, kind)))
