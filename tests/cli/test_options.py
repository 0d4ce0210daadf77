"""Every option of a verb reaches its stage or is refused, and sizes are refused before anything is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import pytest
import typer
from support.command import kdna
from support.commands import commands

from kdna_convert.cli.app import app
from kdna_convert.core.errors import KdnaError
from kdna_convert.inputs.recipe import Recipe
from kdna_convert.stages.plan.files import _LATER

# By verb: its arguments, and the stages that it may call.
VERBS = {
    "run": (["balanced", "NET", "-o", "no/such/out"], ["api.run:run"]),
    "analyze": (["NET"], ["api.analyze:analyze"]),
    "plan": (["NET"], ["api.plan:plan", "api.curve:curve"]),
    "convert": (["NET", "-o", "no/such/out"], ["api.convert:convert", "api.plan:plan"]),
    "finetune": (["FOLDER", "--data", "D", "-o", "no/such/out"], ["api.finetune:finetune"]),
    "shrink": (["FOLDER", "-o", "no/such/out"], ["api.shrink:shrink"]),
    "freeze": (["FOLDER", "--data", "D", "-o", "no/such/out"], ["api.freeze:freeze"]),
    "code": (["FOLDER", "-o", "no/such/out"], ["api.code:code"]),
    "eval": (["NET", "--data", "D"], ["api.evaluate:evaluate"]),
    "compare": (["NET", "--data", "D", "--eval", "E"], ["api.compare:compare"]),
    "bench": (["NET"], ["api.bench:benchmark"]),
}
# What decides where and how a result is shown, or is checked on the result.
AFTERWARDS = {"json", "quiet", "verbose", "output", "force", "html", "plot", "help", "resume", ("finetune", "max_drop")}
VALUES = {
    "target_params": "0.3",
    "target_bytes": "30kB",
    "target_macs": "0.3",
    "moments_memory": "1GiB",
    "device": "cpu",
    "mean": "0.1,0.2,0.3",
    "std": "0.1,0.2,0.3",
    "input_size": "3,64,64",
    "interpolation": "nearest",
    "opt": "sgd",
    "recipe_name": "accurate",
    "bytes_recipe": "balanced",
    "overrides": "seed=9",
    "scheme": "basis",
    "time": "9s",
    "metric": "cosine",
    "codec": "int8",
    "train": "norms",
    "precision": "bf16",
    "crop_pct": "0.5",
    "ema": "0.5",
    "at": "0.3",
    "bytes_": "30kB",
    "peers": "cp",
    "rounds": "7",
    "jsonl": "log",
    "track": "logs",
}


class Called(Exception):  # noqa: N818 - ends a command where its stage begins
    """A stage was called."""


@cache
def _group() -> Any:
    return typer.main.get_command(app)


@contextmanager
def recorded(stages: list[str]) -> Iterator[None]:
    """Stages that raise Called with their name and arguments."""
    with pytest.MonkeyPatch.context() as patch:
        for stage in stages:
            module, _, name = stage.partition(":")

            def call(*args: object, _name: str = name, **given: object) -> None:
                raise Called(_name, args, given)

            patch.setattr(import_module(f"kdna_convert.{module}"), name, call)
        yield


def asked(verb: str, *more: str) -> Any:
    """What a command asks its stage for; the line of an error where it refuses."""
    words, stages = VERBS[verb]
    kept = _LATER if verb == "analyze" else _LATER - {"budget", "repair"} if verb == "plan" else set()
    try:
        with recorded(stages):
            return _group().main([verb, *words, *more], standalone_mode=False)
    except Called as called:
        name, args, given = called.args
        given.pop("progress", None)
        given.pop("command", None)
        recipe = given.get("recipe")
        shown = recipe.model_dump(exclude=kept) if isinstance(recipe, Recipe) else recipe
        return repr((name, args, {**given, "recipe": shown}))
    except Exception as error:
        if type(error).__name__ not in ("BadParameter", "UsageError") and not isinstance(error, KdnaError):
            raise
        return f"refused: {error}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_used_or_refused(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdna_convert.network.folder.require_free", lambda target, force: None)
    plain, ignored = asked(verb), []
    assert "refused" not in plain, plain
    for option in commands()[verb,].params:
        if option.param_type_name != "option" or {option.name, (verb, option.name)} & AFTERWARDS:
            continue
        flag = max(option.opts, key=len)
        if option.secondary_opts:
            flag = option.secondary_opts[0] if option.default else flag
            words = [flag]
        else:
            words = [flag] if option.is_flag else [flag, VALUES.get(option.name, "7")]
        if asked(verb, *words) == plain:
            ignored.append(flag)
    assert ignored == []


SIZED = {
    "--target-params": ["0", "-0.5", "5x", "1.5", "120%"],
    "--target-macs": ["0", "-1/2", "x"],
    "--target-bytes": ["0", "5x", "-5%", "1.2XB"],
    "--moments-memory": ["0", "5x"],
}


@pytest.mark.parametrize("flag", SIZED)
def test_a_size_is_refused_before_the_model_is_loaded(flag: str) -> None:
    for verb, (words, _) in VERBS.items():
        known = any(flag in option.opts for option in commands()[verb,].params)
        for value in SIZED[flag] if verb == "plan" else SIZED[flag][: int(known)]:
            done = kdna(verb, *words, flag, value)
            assert (done.exit_code, done.stdout) == (2, "")
            assert f"Invalid value for '{flag}': '{value}' is not a s" in done.stderr
            assert "write it like" in done.stderr


@pytest.mark.parametrize(("flag", "value"), [("--at", "0.5,0"), ("--bytes", "5%,5x")])
def test_the_sizes_of_a_comparison_are_refused_likewise(flag: str, value: str) -> None:
    done = kdna("compare", "NET", "--data", "D", "--eval", "E", flag, value)
    assert done.exit_code == 2
    assert f"Invalid value for {flag}" in done.stderr
