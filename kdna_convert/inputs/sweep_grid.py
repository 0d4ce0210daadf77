"""GRID: the nets, recipes, budgets and seeds of a sweep, as YAML.

    data: ${DATA}/cifar10/train             # for all nets; ${NAME} is a variable of the environment
    eval_data: ${DATA}/cifar10/test
    models:
      - kdna:digits                         # MODEL alone, or with its own keys:
      - model: examples/cifar_resnet.py:resnet20
        name: resnet20                      # in the names of jobs; default: the end of MODEL
        checkpoint: ${DATA}/checkpoints/cifar10_resnet20.safetensors
        original: {top1: 0.919}             # what the original must score on eval_data, within 0.0035
        budgets: [{params: 0.5}]            # in place of the grid's; also recipes and seeds
    recipes:
      - balanced                            # RECIPE alone, or with changes:
      - {recipe: accurate, name: quick, set: ["repair=[]"], budgets: [{params: 0.5}]}
    budgets: [{params: 0.5}, {params: 1/4}, {bytes: 1/20}]
    seeds: [0, 1, 2]                        # default: the recipe's own

Every net with every recipe at every budget and seed is a job, one `kdna run`. Importing this file does not import
torch.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import RecipeError, reason_of
from ..core.measurements import MEASURES
from ..core.plugin_names import TaskName
from .recipe import load_recipe, yamlfile
from .recipe.fields import Share, Target
from .recipe.reading import SENTENCES
from .recipe.yamlfile import MarkedError, Places

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]


class _GridSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GridBudget(_GridSection):
    """A share of the parameters, or the size of the file in bytes or as a share of the original's."""

    params: Share | None = None
    bytes: Target | None = None

    @model_validator(mode="after")
    def _one(self) -> GridBudget:
        if (self.params is None) == (self.bytes is None):
            raise ValueError("must have one of `params` and `bytes`")
        return self

    @property
    def text(self) -> str:
        """`params 0.5` or `bytes 1/20`."""
        return f"params {self.params:g}" if self.params is not None else f"bytes {self.bytes}"

    @property
    def flags(self) -> list[str]:
        """The same as options of `kdna run`."""
        flag, value = self.text.split(" ", 1)
        return [f"--target-{flag}", value]


class GridRecipe(_GridSection):
    """A recipe, its changes as for `--set`, its name in the names of jobs, and its budgets in place of others."""

    recipe: Text
    name: Name
    set: tuple[str, ...] = ()
    budgets: tuple[GridBudget, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        given = {"recipe": given} if isinstance(given, str) else given
        if isinstance(given, dict) and isinstance(given.get("recipe"), str) and "name" not in given:
            return {"name": _slug(Path(given["recipe"]).stem), **given}
        return given


class GridNet(_GridSection):
    """A net, its weights, its images and what it must score; and what it has in place of the grid's keys."""

    model: Text
    name: Name
    checkpoint: Text | None = None
    checkpoint_key: Text | None = None
    checkpoint_prefix: Text | None = None
    data: Text | None = None
    eval_data: Text | None = None
    class_map: Text | None = None
    task: TaskName | None = None
    outputs: Text | None = None
    metric: Text | None = None
    input_size: Text | int | None = None
    sample_rate: int | None = None
    mean: Text | None = None
    std: Text | None = None
    crop_pct: float | None = None
    interpolation: Text | None = None
    original: dict[str, float] = Field(default_factory=dict)
    recipes: tuple[GridRecipe, ...] | None = None
    budgets: tuple[GridBudget, ...] | None = None
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        given = {"model": given} if isinstance(given, str) else given
        if isinstance(given, dict) and isinstance(given.get("model"), str) and "name" not in given:
            return {"name": _slug(re.split(r"[:/]", given["model"].partition("(")[0])[-1]), **given}
        return given

    @property
    def flags(self) -> list[str]:
        """What is given, as options of `kdna run` and `kdna plan`; not the images, nor what only `run` measures."""
        left_out = {"model", "name", "data", "eval_data", "metric", "original", "recipes", "budgets", "seeds"}
        given = self.model_dump(exclude=left_out, exclude_none=True)
        return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


class Grid(_GridSection):
    """What a sweep runs."""

    models: tuple[GridNet, ...]
    recipes: tuple[GridRecipe, ...] = ()
    budgets: tuple[GridBudget, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    data: Text | None = None
    eval_data: Text | None = None

    @property
    def jobs(self) -> tuple[GridJob, ...]:
        """Every net with each of its recipes, budgets and seeds, net by net."""
        return tuple(
            GridJob(net=net, recipe=recipe, budget=budget, seed=seed, data=data, eval_data=eval_data)
            for net in self.models
            for data, eval_data in [(net.data or self.data, net.eval_data or self.eval_data)]
            for seed in (net.seeds or self.seeds or (None,))
            for recipe in (self.recipes if net.recipes is None else net.recipes)
            for budget in next(each.budgets for each in (recipe, net, self) if each.budgets is not None)
        )


class GridJob(_GridSection):
    """One run of a sweep. `seed` is None for the recipe's own."""

    net: GridNet
    recipe: GridRecipe
    budget: GridBudget
    seed: int | None
    data: str | None
    eval_data: str | None

    @property
    def name(self) -> str:
        """`resnet20-accurate-params0.5-seed0`: a name of a file."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        return f"{self.net.name}-{self.recipe.name}-{_slug(self.budget.text.replace(' ', ''))}{seed}"

    @property
    def changes(self) -> list[str]:
        """The recipe's changes, the seed last."""
        return [*self.recipe.set, *([] if self.seed is None else [f"seed={self.seed}"])]


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
            raise RecipeError("KD209", f"{name}: two {what} are called {twice[0]}; give one of them a `name`")


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


def _slug(text: str) -> str:
    """The text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "net"
