"""Read the grid of a sweep from its file. Every mistake is named with its line. No torch is imported."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..core.errors import RecipeError, reason_of
from ..core.measurements import MEASURES
from .recipe import load_recipe, yamlfile
from .recipe.reading import SENTENCES
from .recipe.yamlfile import MarkedError, Places
from .sweep_grid import Grid, GridJob, GridNet


def load_grid(source: str | Path) -> Grid:
    """Read the grid of a sweep and the recipes that it names.

    Raises:
        RecipeError: KD209 for a file that cannot be read or is invalid, with its line; KD210 for one without jobs;
            KD201, KD202, KD203 and KD206 for a recipe.
    """
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("KD209", f"{path} cannot be read: {error}") from None
    return parse_grid(text, name=path.name)


def parse_grid(text: str, *, name: str = "grid") -> Grid:
    """Read a grid from YAML text. Its error messages begin with `name`. Raises as load_grid does."""
    try:
        value, lines = yamlfile.parse(text)
    except MarkedError as error:
        raise RecipeError("KD209", f"{name} line {error.line}: {error}") from None
    places = Places(name, lines)
    try:
        grid = Grid.model_validate(_with_variables(value, (), places))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [part for part in first["loc"] if not isinstance(part, str) or not part.startswith("function-")]
        reason = "unknown key" if first["type"] == "extra_forbidden" else SENTENCES.get(first["type"], reason_of(first))
        raise RecipeError("KD209", f"{places(tuple(keys))}: {reason}") from None
    _require_jobs(grid, name)
    for recipe in {job.recipe.model_dump_json(): job.recipe for job in grid.jobs}.values():
        load_recipe(recipe.recipe, recipe.set)
    return grid


def matching(jobs: Sequence[GridJob], pattern: str | None) -> list[GridJob]:
    """The jobs whose names match a pattern with *, ? and [abc]; without one, all. Raises RecipeError KD210 for none."""
    found = [job for job in jobs if pattern is None or fnmatchcase(job.name, pattern)]
    if not found:
        raise RecipeError("KD210", f"no job of the grid matches {pattern!r}; the first is {jobs[0].name}")
    return found


def _require_jobs(grid: Grid, name: str) -> None:
    """Raise RecipeError if there is no job, or two of one name."""
    jobs = grid.jobs
    if not jobs:
        empty = [key for key in ("models", "recipes", "budgets") if not getattr(grid, key)]
        raise RecipeError("KD210", f"{name} has no job: {' and '.join(empty) or 'every net'} is empty")
    _require_names(grid, name)
    for net in {job.net.name: job.net for job in jobs}.values():
        unknown = [measure for measure in net.original if measure not in MEASURES]
        if unknown:
            raise RecipeError(
                "KD209", f"{name}: {net.name}: original: {unknown[0]} is not one of {', '.join(MEASURES)}"
            )
        if net.original and not (net.eval_data or grid.eval_data):
            raise RecipeError("KD209", f"{name}: {net.name}: `original` is measured on `eval_data`; give these")


def _require_names(grid: Grid, name: str) -> None:
    """Raise RecipeError KD209 if two nets have one name, or two recipes or budgets of a net. Case does not count."""
    nets = [net.name.casefold() for net in grid.models]
    jobs = [job.name.casefold() for job in grid.jobs]
    recipes = [each for net in grid.models for each in _recipe_names(grid, net)]
    for what, names in (("nets", nets), ("recipes of a net", recipes), ("jobs", jobs)):
        twice = [each for each, count in Counter(names).items() if count > 1]
        if twice:
            way_out = "remove one of them" if what == "jobs" else "give one of them a `name`"
            raise RecipeError("KD209", f"{name}: two {what} are called {twice[0]}; {way_out}")


def _recipe_names(grid: Grid, net: GridNet) -> list[str]:
    recipes = grid.recipes if net.recipes is None else net.recipes
    return [f"{recipe.name.casefold()} (of {net.name})" for recipe in recipes]


def _with_variables(value: Any, path: tuple[str | int, ...], places: Places) -> Any:
    """The value with ${NAME} replaced by variables of the environment."""
    if isinstance(value, dict):
        return {key: _with_variables(each, (*path, key), places) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_variables(each, (*path, number), places) for number, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise RecipeError("KD209", f"{places(path)}: the variable {found[1]} is not set; set it to a path")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", variable, value)
