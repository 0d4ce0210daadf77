"""The commands of `kdna` as objects, and a parser that runs nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import typer

from kdna_convert.cli.app import app


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by its words, groups left out."""
    group = typer.main.get_command(app) if group is None else group
    by_name: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        words = (*path, name)
        by_name |= commands(command, words) if hasattr(command, "commands") else {words: command}
    return by_name


def parse(arguments: Sequence[str] | str) -> None:
    """Parse what follows `kdna` on a command line. Raises the usage error that the command line would end with."""
    arguments = shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
    context = typer.main.get_command(app).make_context("kdna", arguments)
    while hasattr(context.command, "commands"):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
