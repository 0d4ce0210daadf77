"""The recipe of what was steered, edits as rules and exclusions, and the command that converts by it or by a plan."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..api.explore import Exploration
from ..inputs.recipe import Forced, steered_recipe
from ..stages.plan.budget import PlanBudget
from ..stages.plan.costs import original_totals
from ..stages.plan.edits import offers_of
from ..stages.plan.steered import Steered


@dataclass(frozen=True)
class GivenOptions:
    """Options of the command line as they were given, for the command that the page tells.

    Attributes:
        recipe: The recipe and its overrides. A recipe that the page wrote has them.
        latency: What times the layers.
        database: The file of predicted errors. A plan needs none, and edits make another recipe, which it is not of.
    """

    recipe: tuple[str, ...] = ()
    latency: tuple[str, ...] = ()
    database: tuple[str, ...] = ()


_FLAGS = {"crop_mode": "crop"}  # the others are named as the arguments


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
        return f"# Written by kdna explore. Use it with {' '.join(timed_option(budget))}\n{made.text}"
    return f"# Written by kdna explore.\n{made.text}"


def timed_option(budget: PlanBudget) -> list[str]:
    """The option for a budget of time, which no recipe holds."""
    return ["--target-latency", f"{budget.amount / 1e6:.4g}ms"] if budget.kind == "latency" else []


def command_by(file: Path, what: str, given: GivenOptions, at: Steered, budget: PlanBudget) -> list[str]:
    """The options to convert by a `plan` or a `recipe` that was written."""
    if what == "plan":
        return [*given.recipe, "--plan", str(file)]
    timed = [*timed_option(budget), *given.latency] if budget.kind == "latency" else []
    return ["-r", str(file), *timed, *(() if at.edits else given.database)]


def command_text(exploration: Exploration, options: Sequence[str]) -> str:
    """The command that converts the same net on the same images with these options, as a shell reads it."""
    given = dict(exploration.arguments)
    inputs = given.pop("inputs", None) or {}
    named: list[str] = []
    for key, value in {**given, **inputs}.items():
        flag = "--" + _FLAGS.get(key, key).replace("_", "-")
        if value is True:
            named.append(flag)
        elif key != "model" and value not in (None, False, "auto"):
            named += [flag, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return shlex.join(["kdna", "convert", exploration.model, *named, *options, "-o", "small"])
