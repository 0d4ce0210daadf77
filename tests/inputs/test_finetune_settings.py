"""The settings of a fine-tune are defined once: Python, recipe and command line have the same names and limits."""

from dataclasses import fields
from typing import Any

import pytest
from support.command import kdna

from kdna_convert.api.keywords import FinetuneOptions
from kdna_convert.cli.commands.finetune import Safety, TrainingOptions
from kdna_convert.core.errors import RecipeError
from kdna_convert.inputs.finetune_settings import Settings, about, default_of
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.inputs.recipe.schema import Finetune

NAMES = [each.name for each in fields(Settings)]
LIMITED = [name for name in NAMES if about(name).limits != about("opt").limits and name != "seconds"]
OWN = {"resume", "max_drop", "metric", "jsonl", "track"}  # options that are no settings


def written(name: str) -> str:
    """The setting as recipes and the command line call it."""
    return "time" if name == "seconds" else name


def outside(name: str) -> int:
    """A value just outside the limits of a setting."""
    return -1 if about(name).limits.least == 0 else 0


def test_the_recipe_has_the_settings_and_their_defaults_but_for_the_seed() -> None:
    assert set(Finetune.model_fields) == {written(name) for name in NAMES} - {"seed"}
    assert {written(name): default_of(name) for name in NAMES if name != "seed"} == Finetune().model_dump()


def test_the_command_has_the_settings_and_their_defaults() -> None:
    options = {each.name: each.default for kind in (TrainingOptions, Safety) for each in fields(kind)}  # type: ignore[arg-type]
    assert options.keys() == {written(name) for name in NAMES} | OWN
    assert {name: default for name, default in options.items() if name not in OWN} == {
        written(name): default_of(name) for name in NAMES
    }


def test_python_has_the_settings() -> None:
    own = {"model", "trust_code", "teacher_checkpoint", "work", "resume", "log", "track", "task", "outputs", "metric"}
    assert set(FinetuneOptions.__annotations__) == {*NAMES, *own}


def test_a_recipe_becomes_settings() -> None:
    text = "scheme: cp\nfinetune: {time: 90s, lr: 0.1, train: shared, clip: 1.0}\n"
    section = parse_recipe(text).finetune
    assert section is not None
    assert section.settings(7) == Settings(seconds=90, lr=0.1, train="shared", clip=1.0, seed=7)


@pytest.mark.parametrize("name", LIMITED)
def test_a_value_outside_its_limits_is_refused_everywhere(name: str) -> None:
    value: Any = outside(name)
    with pytest.raises(RecipeError, match=f"KD208: {name}: must be"):
        Settings(**{name: value})
    if name != "seed":
        with pytest.raises(RecipeError, match=f"KD203.*finetune.{name}"):
            parse_recipe(f"scheme: cp\nfinetune: {{{name}: {value}}}\n")
    flag = f"--{name.replace('_', '-')}"
    done = kdna("finetune", "folder", "--data", "kdna:digits/train", flag, str(value), "-o", "out")
    assert done.exit_code == 2
    assert name in done.stderr.replace("-", "_")


def test_every_limit_has_a_value_outside_it() -> None:
    assert {"epochs", "batch_size", "lr", "ema", "mixup", "patience", "seed"} < set(LIMITED)
