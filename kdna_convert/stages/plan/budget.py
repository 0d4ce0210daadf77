"""Budgets: what a plan may cost, in parameters, file bytes, MACs or time. A new kind of budget begins here.

`KINDS` names the kinds. costs.py computes what a choice of sizes costs in each, knapsack.py keeps within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...core.errors import PlanError
from ...core.specs import Totals
from ...inputs.recipe import Recipe, parse_count, parse_latency, parse_target

Kind = Literal["params", "bytes", "macs", "latency"]
# Each kind and its unit in messages. The kinds are the fields of core.specs.Totals.
KINDS: dict[Kind, str] = {"params": "parameters", "bytes": "bytes", "macs": "multiply-adds", "latency": "nanoseconds"}


def amount_of(kind: Kind, amount: int) -> str:
    """An amount with its unit: 12,000 parameters, 7.31 ms."""
    return f"{amount / 1e6:,.3g} ms" if kind == "latency" else f"{amount:,} {KINDS[kind]}"


@dataclass(frozen=True)
class PlanBudget:
    """At most `amount` of `kind`: parameters, bytes of the file, MACs per image, or nanoseconds per batch."""

    kind: Kind
    amount: int


def budget_of(
    original: Totals,
    recipe: Recipe,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    target_macs: float | str | None = None,
    target_latency: float | str | None = None,
) -> PlanBudget | None:
    """The target, or else the recipe's budget, in whole units. Targets up to 1 are shares of the `original` net.

    A codec meets a size in bytes without a plan, so a recipe with a codec has no budget of bytes here.

    Returns:
        None if neither is given: the recipe sets every size itself.

    Raises:
        PlanError: KD506 for two targets, for one that is no size or share, or for bytes with a codec.
    """
    refuse_coded(recipe, target_bytes)
    targets: dict[Kind, float | str | None] = {
        "params": target_params,
        "bytes": target_bytes,
        "macs": target_macs,
        "latency": target_latency,
    }
    given = {kind: value for kind, value in targets.items() if value is not None}
    if not given and recipe.budget is not None:
        own = {kind: getattr(recipe.budget, kind, None) for kind in KINDS if kind != "bytes" or recipe.codec is None}
        given = {kind: value for kind, value in own.items() if value is not None}
    if not given:
        return None
    if len(given) > 1:
        raise PlanError("KD506", f"give one budget, not {len(given)} ({', '.join(given)})")
    ((kind, value),) = given.items()
    parse = {"bytes": parse_target, "latency": parse_latency}.get(kind, parse_count)
    return PlanBudget(kind, parse(value, getattr(original, kind)))


def refuse_coded(recipe: Recipe, target_bytes: float | str | None) -> None:
    """Raise PlanError KD506 for a plan with a size in bytes, if the recipe has a codec."""
    if recipe.codec is not None and target_bytes is not None:
        way_out = "size a plan by its parameters (--target-params) or MACs (--target-macs)"
        raise PlanError("KD506", f"the recipe's codec, {recipe.codec}, meets the bytes of the file; {way_out}")
