"""The recipe of what was steered: edits as rules and exclusions, and the budget."""

from __future__ import annotations

from ..api.explore import Exploration
from ..inputs.recipe import Forced, steered_recipe
from ..stages.plan.budget import PlanBudget
from ..stages.plan.costs import original_totals
from ..stages.plan.edits import offers_of
from ..stages.plan.steered import Steered


def recipe_text(exploration: Exploration, at: Steered, budget: PlanBudget) -> str:
    """The YAML. A budget of time is an option of the command, which the first comment names.

    Raises:
        RecipeError: as `steered_recipe`.
    """
    dense = [name for edit in at.edits if edit.way is None for name in edit.layers]
    forced = []
    for edit in at.edits:
        if edit.way is not None:
            offers = offers_of(exploration.database, edit.layers[0])
            name = next(offer.size for offer in offers if offer.way == edit.way)
            size = {} if edit.size is None else {name: edit.size}
            forced.append(Forced(edit.layers, edit.way.scheme, dict(edit.way.options) | size))
    whole = getattr(original_totals(exploration.database), budget.kind)
    given: dict[str, float] = (
        {"bytes": budget.amount} if budget.kind == "bytes" else {budget.kind: round(budget.amount / whole, 6)}
    )
    timed = budget.kind == "latency"
    made = steered_recipe(exploration.recipe, exploration.database.layers, dense, forced, None if timed else given)
    if timed:
        return f"# Written by kdna explore. Use it with --target-latency {budget.amount / 1e6:.4g}ms\n{made.text}"
    return f"# Written by kdna explore.\n{made.text}"
