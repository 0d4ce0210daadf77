"""A recipe with other layers left out or forced, and another budget, as text that `kdna convert -r` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.specs import Layer, Options
from . import yamlfile
from .patterns import Precision, precision
from .reading import parse_recipe
from .resolving import resolve
from .schema import Recipe

HEAD = "# recipe with --set "  # parse_recipe tells each change in a comment, but here the keys themselves say it


@dataclass(frozen=True)
class Forced:
    """Layers that have a scheme with these options."""

    layers: tuple[str, ...]
    scheme: str
    options: Options


def steered_recipe(
    recipe: Recipe,
    layers: Sequence[Layer],
    dense: Sequence[str],
    forced: Sequence[Forced],
    budget: Mapping[str, float] | None,
) -> Recipe:
    """The recipe with these layers dense, others forced to a scheme, and this budget; None keeps the recipe's.

    Args:
        recipe: Its other keys stay.
        layers: Those of the net, for which the new recipe is checked.
        dense: Names of layers to exclude.
        forced: What becomes rules. They replace what the recipe's own rules say of these layers by name.
        budget: One key of Budget and its value.

    Raises:
        RecipeError: as `parse_recipe` and `resolve` raise for a recipe that cannot say this.
    """
    given: Any = yamlfile.parse(recipe.text)[0]
    named = {name for each in forced for name in each.layers} | {*dense}
    kept = [rule for rule in (_unnamed(each, named) for each in given.get("rules") or []) if rule["layers"]]
    rules = [
        *kept,
        *({"layers": [*map(_pattern, each.layers)], "scheme": each.scheme, "options": each.options} for each in forced),
    ]
    left_out = [*_listed(given.get("exclude")), *map(_pattern, dense)]
    changes: dict[str, Any] = {"rules": rules, "exclude": [*dict.fromkeys(left_out)]}
    if budget is not None:
        changes |= {"budget": dict(budget)}
    new = parse_recipe(
        recipe.text, [f"{key}={json.dumps(value)}" for key, value in changes.items() if value or key in given]
    )
    new = parse_recipe("".join(line for line in new.text.splitlines(keepends=True) if not line.startswith(HEAD)))
    resolve(new, layers)
    return new


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else [*value]


def _unnamed(rule: Any, named: set[str]) -> Any:
    """A rule without the layers that it names exactly and that are decided otherwise."""
    return {**rule, "layers": [each for each in _listed(rule["layers"]) if each not in named]}


def _pattern(name: str) -> str:
    """The pattern that matches this name alone."""
    return name if precision(name) is Precision.EXACT else f"re:{re.escape(name)}"
