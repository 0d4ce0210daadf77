"""The help of every command: golden at 80 columns, readable, and with an example that parses."""

from __future__ import annotations

import inspect
import re
import shlex
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Literal

import pytest
from support.command import kdna
from support.commands import commands, parse

from kdna_convert.cli.app import app
from kdna_convert.cli.commands import recipe
from kdna_convert.cli.commands.help import WIDEST, name_of

Golden = Callable[[str, str], None]
PAGES = [(), ("recipe",), *commands()]


def help_of(words: tuple[str, ...]) -> str:
    done = kdna(*words, "--help")
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_help_is_as_it_was(words: tuple[str, ...], golden: Golden) -> None:
    golden("-".join(["help", *words]), help_of(words))


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_line_is_longer_than_80_columns(words: tuple[str, ...]) -> None:
    assert max(map(len, help_of(words).splitlines())) <= 80


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_line_is_cut_off_where_the_terminal_is_narrow(words: tuple[str, ...]) -> None:
    assert "…" not in help_of(words)
    assert "..." not in help_of(words).replace("COMMAND ...", "")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_an_option_and_its_value_are_one_line_and_leave_room_for_the_description(words: tuple[str, ...]) -> None:
    lines = help_of(words).splitlines()
    for parameter in commands()[words].params:
        name = name_of(parameter)
        line = next(line for line in lines if line == f"  {name}" or line.startswith(f"  {name}  "))
        column = len(line) - len(line[len(name) + 2 :].lstrip())
        assert line == f"  {name}" or column <= WIDEST + 4


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_an_option_with_a_value_names_it_shortly(words: tuple[str, ...]) -> None:
    for parameter in commands()[words].params:
        takes_value = parameter.param_type_name == "argument" or not parameter.is_flag
        assert bool(parameter.metavar) == takes_value, parameter.name
        assert not takes_value or re.fullmatch(r"[A-Z=]{1,9}", parameter.metavar), parameter.metavar


def choices() -> Iterator[tuple[str, list[str], str]]:
    """Every parameter with a fixed set of values: where it is, the values, and its help."""
    registered = [*app.registered_commands, *recipe.app.registered_commands]
    for command in registered:
        assert command.callback is not None
        for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
            kind, info = typing.get_args(parameter.annotation)[:2] or (None, None)
            kinds = typing.get_args(kind) if typing.get_origin(kind) is not Literal else ()
            for one in (kind, *kinds):
                if typing.get_origin(one) is Literal:
                    yield f"{command.name} {parameter.name}", list(typing.get_args(one)), info.help
                elif inspect.isclass(one) and issubclass(one, Enum):
                    yield f"{command.name} {parameter.name}", [member.value for member in one], info.help


def test_help_lists_the_values_where_there_is_a_fixed_set() -> None:
    listed = {place: (values, text) for place, values, text in choices()}
    assert {"analyze metric", "code codec", "finetune train", "finetune precision", "ls kind", "export to"} <= set(
        listed
    )
    for place, (values, text) in listed.items():
        assert [value for value in values if not re.search(rf"\b{value}\b", text)] == [], place


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_an_example_that_parses(words: tuple[str, ...]) -> None:
    lines = help_of(words).split("  Example:\n")[1].split("\n\n")[0].splitlines()
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "kdna"
        assert tuple(arguments[: len(words)]) == words
        parse(arguments)


def test_a_command_line_that_does_not_parse_fails_the_law() -> None:
    for wrong in (["load", "half"], ["convert"], ["recipe", "check"], ["convert", "resnet18", "--target-param", "0.5"]):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parse(wrong)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_names_only_flags_that_exist(words: tuple[str, ...]) -> None:
    parameters = [parameter for command in commands().values() for parameter in command.params]
    flags = {flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert set(re.findall(r"--[a-z0-9-]+", help_of(words))) <= flags | {"--help"}
