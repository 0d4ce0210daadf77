"""The command line as a user meets it: help everywhere, results on stdout, the rest on stderr, honest exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from kdna_convert import __version__
from kdna_convert.cli import app
from kdna_convert.commands import about
from kdna_convert.errors import CODES, GuardError
from kdna_convert.recipe import bundled


def kdna(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="kdna", env={"COLUMNS": "80", "NO_COLOR": "1"})


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by its words, groups left out."""
    group = typer.main.get_command(app) if group is None else group
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        words = (*path, name)
        found |= commands(command, words) if hasattr(command, "commands") else {words: command}
    return found


def test_the_commands_are_those_of_the_product() -> None:
    assert {words[0] for words in commands()} == {
        *("analyze", "plan", "convert", "finetune", "eval", "bench", "verify", "export"),
        *("demo", "recipe", "ls", "explain", "env"),
    }
    assert {words[1] for words in commands() if words[0] == "recipe"} == {"ls", "show", "cp", "validate", "schema"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_every_option_says_what_it_does(words: tuple[str, ...]) -> None:
    command = commands()[words]
    assert command.help
    assert command.help.rstrip().endswith(".")
    undocumented = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert undocumented == []


@pytest.mark.parametrize("words", [(), ("recipe",), *commands()], ids=" ".join)
def test_help_is_printed_for_every_command(words: tuple[str, ...]) -> None:
    done = kdna(*words, "--help")
    assert done.exit_code == 0
    assert "Usage: " + " ".join(("kdna", *words)) in " ".join(done.stdout.split())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_an_option_means_the_same_in_every_command(words: tuple[str, ...]) -> None:
    """One spelling, one meaning: -o is the output, -d the data, -r the recipe, -q quiet, -v verbose."""
    short = {"-o": "output", "-d": "data", "-r": "recipe_name", "-q": "quiet", "-v": "verbose", "-h": "help"}
    for parameter in commands()[words].params:
        for flag in parameter.opts:
            assert short.get(flag, parameter.name) == parameter.name


def test_the_version_is_the_packages() -> None:
    assert kdna("--version").stdout == f"kdna {__version__}\n"


@pytest.mark.parametrize(
    "wrong", [("convolve",), ("plan",), ("ls", "moles"), ("explain", "KD999"), ("bench", "x", "--rounds", "1")]
)
def test_a_wrong_command_line_is_exit_code_two_with_nothing_on_stdout(wrong: tuple[str, ...]) -> None:
    done = kdna(*wrong)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: kdna" in done.stderr


def test_explain_knows_every_code() -> None:
    assert kdna("explain").stdout.count("KD") >= len(CODES)
    for form in ("KD301", "kd301", "301"):
        assert kdna("explain", form).stdout.startswith("KD301")


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (GuardError("KD801", "agreement 12 % is below 90 %"), 3, "kdna: error KD801: agreement 12 % is below 90 %\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_stage_raises_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(about, "_environment", fail)
    done = kdna("env")
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", line)


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(about, "_environment", lambda: 1 / 0)
    done = kdna("env")
    assert done.exit_code == 1
    assert isinstance(done.exception, ZeroDivisionError)


def test_bundled_recipes_are_listed_shown_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(kdna("recipe", "ls", "--json").stdout) == list(bundled())
    assert json.loads(kdna("ls", "recipes", "--json").stdout) == list(bundled())
    for name, path in bundled().items():
        assert kdna("recipe", "show", name).stdout == path.read_text()
    assert kdna("recipe", "cp", "shared-cp").exit_code == 0
    assert Path("shared-cp.yaml").read_text() == bundled()["shared-cp"].read_text()
    assert kdna("recipe", "validate", "shared-cp.yaml").stdout == "shared-cp.yaml: valid\n"


def test_copying_a_recipe_does_not_overwrite_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("scheme: basis\n")
    done = kdna("recipe", "cp", "shared-cp", str(mine))
    assert (done.exit_code, mine.read_text()) == (2, "scheme: basis\n")
    assert "KD601" in done.stderr
    assert kdna("recipe", "cp", "shared-cp", str(mine), "--force").exit_code == 0
    assert mine.read_text() == bundled()["shared-cp"].read_text()


def test_the_schema_of_a_recipe_is_json() -> None:
    assert "scheme" in json.loads(kdna("recipe", "schema").stdout)["properties"]


def test_verbose_shows_where_an_error_came_from() -> None:
    assert kdna("recipe", "show", "no-such").stderr.count("\n") == 1
