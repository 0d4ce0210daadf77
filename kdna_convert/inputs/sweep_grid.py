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

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ..core.plugin_names import CropName, InterpolationName, TaskName
from .recipe.fields import Share, Target

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
    crop_pct: Annotated[float, Field(ge=0.01, le=1)] | None = None
    crop: CropName | None = None
    interpolation: InterpolationName | None = None
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

    @field_validator("input_size", "mean", "std", mode="before")
    @classmethod
    def _numbers(cls, given: Any, info: ValidationInfo) -> Any:
        """A number, or several with commas or spaces: what the options of these names take."""
        whole = info.field_name == "input_size"
        number = r"\d+" if whole else r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
        if given is not None and not re.fullmatch(rf"\s*{number}((\s*,\s*|\s+){number})*\s*", str(given)):
            raise ValueError(f"must be {'a size such as 224 or 3,224,224' if whole else 'numbers such as 0.5,0.5,0.5'}")
        return given if whole or given is None else str(given)

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


def _slug(text: str) -> str:
    """The text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "net"
