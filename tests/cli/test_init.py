"""`kdna init`: every answer gives a recipe that is valid, commented, and never written over another file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from support.command import NET, kdna
from support.commands import parse

from kdna_convert.cli.commands import init
from kdna_convert.inputs.recipe import GOALS, json_schema, load_recipe


def made(path: Path, *flags: object) -> str:
    """The text of a recipe that `init` wrote without a question."""
    done = kdna("init", "-o", path, *flags)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    return path.read_text()


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("finetune", ["10m", "none"])
def test_every_goal_gives_a_valid_recipe(goal: str, finetune: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    made(path, "--goal", goal, "--finetune", finetune)
    assert kdna("recipe", "validate", path, "--model", NET).exit_code == 0
    recipe = load_recipe(str(path))
    assert (recipe.finetune is None) == (finetune == "none")
    assert recipe.routing.name == ("se" if goal == "routing" else "none")


@pytest.mark.parametrize("goal", GOALS)
def test_every_key_has_a_comment_above_it_and_what_is_commented_out_is_valid(goal: str, tmp_path: Path) -> None:
    text = made(tmp_path / "recipe.yaml", "--goal", goal)
    lines = text.replace(f"{tmp_path}/", "").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z]", line):
            assert lines[number - 1].startswith("# "), line
    assert max(map(len, lines)) <= 104
    optional = [line.removeprefix("# ") for line in lines if re.match(r"# ( *)?[a-z]+: ", line)]
    keys = {line.split(":")[0] for line in optional if not line.startswith(" ")}
    assert keys <= set(json_schema()["properties"])
    uncommented = re.sub(r"(?m)^# (( +)?[a-z]+:( .*)?)$", r"\1", text)
    (tmp_path / "whole.yaml").write_text(uncommented)
    assert set(yaml.safe_load(uncommented)) >= {"finetune", "include", "exclude"}
    assert kdna("recipe", "validate", tmp_path / "whole.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("goal", "size", "budget"),
    [
        ("parameters", "25%", {"params": 0.25}),
        ("accuracy", "1/4", {"params": 0.25}),
        ("macs", "0.6", {"macs": 0.6}),
        ("bytes", "86kB", {"bytes": 86_000}),
    ],
)
def test_the_size_is_in_the_recipe(goal: str, size: str, budget: dict[str, float], tmp_path: Path) -> None:
    text = made(tmp_path / "recipe.yaml", "--goal", goal, "--size", size)
    assert yaml.safe_load(text)["budget"] == budget


def test_a_share_of_the_file_is_an_option_of_the_command(tmp_path: Path) -> None:
    done = kdna("init", "-o", tmp_path / "recipe.yaml", "--goal", "bytes", "--size", "1/30")
    assert "--target-bytes 1/30" in done.stderr
    assert "budget" not in yaml.safe_load((tmp_path / "recipe.yaml").read_text())


@pytest.mark.parametrize("goal", GOALS)
def test_the_suggested_commands_parse(goal: str, tmp_path: Path) -> None:
    done = kdna("init", "-o", tmp_path / "a recipe.yaml", "--goal", goal, "--model", "kdna:digits", "-d", "my images")
    commands = re.findall(r"kdna (.+)", done.stderr)
    assert [command.split()[0] for command in commands] == ["recipe", "run"]
    for command in commands:
        parse(command)
        assert f"#   kdna {command}" in (tmp_path / "a recipe.yaml").read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--size", "2"),
        ("--size", "1.2MB"),  # of the parameters
        ("--finetune", "10"),
        ("--goal", "routing", "--routing", "sse"),
    ],
)
def test_an_answer_that_cannot_be_used_writes_nothing(wrong: tuple[str, ...], tmp_path: Path) -> None:
    done = kdna("init", "-o", tmp_path / "recipe.yaml", *wrong)
    assert done.exit_code == 2
    assert "error KD" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("scheme: basis\n")
    done = kdna("init", "-o", path)
    assert (done.exit_code, path.read_text()) == (2, "scheme: basis\n")
    assert "KD601" in done.stderr
    made(path, "--force")
    assert load_recipe(str(path)).scheme == "cp"


def test_a_terminal_is_asked_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "in_terminal", lambda: True)
    path = tmp_path / "recipe.yaml"
    answers = ["small", "macs", "2", "70%", "5m", "kdna:digits", ""]
    done = kdna("init", "-o", path, input="\n".join(answers) + "\n")
    assert done.exit_code == 0, done.stderr
    assert "there is no goal 'small'" in done.stderr
    assert "'2' is not a share" in done.stderr
    recipe = load_recipe(str(path))
    assert recipe.budget is not None
    assert recipe.finetune is not None
    assert (recipe.budget.macs, recipe.finetune.time) == (0.7, 300)
    assert "run " + str(path) + " kdna:digits --data DATA" in done.stderr


def test_flags_and_yes_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "in_terminal", lambda: True)
    assert kdna("init", "-o", tmp_path / "a.yaml", "--yes", input="").exit_code == 0
    flags = ("--goal", "bytes", "--size", "1/20", "--finetune", "none", "--model", "net", "--data", "images")
    assert kdna("init", "-o", tmp_path / "b.yaml", *flags, input="").exit_code == 0
