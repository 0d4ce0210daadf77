"""`kdna ls`: the available models, schemes, routings, codecs, recipes and boards."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from fnmatch import fnmatch
from typing import Annotated

import typer

from .console import show, show_json
from .options import JsonFlag


class Kind(str, Enum):
    """What `kdna ls` lists."""

    models = "models"
    schemes = "schemes"
    routing = "routing"
    codecs = "codecs"
    recipes = "recipes"
    boards = "boards"


def ls(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="models, schemes, routing, codecs, recipes or boards.")],
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Only matching names: 'resnet*'.")] = "*",
    coverage: Annotated[
        bool, typer.Option("--coverage", help="For models: what came of converting each with random weights.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """List models, schemes, routings, codecs, recipes or boards.

    Example:
        kdna ls schemes
    """
    from ..report.ls import name_table

    if coverage:
        _show_coverage(kind, pattern, json)
        return
    if kind is Kind.routing:
        _show_routing(pattern, json)
        return
    entries = {name: what for name, what in _entries(kind).items() if fnmatch(name, pattern)}
    show_json(list(entries)) if json else show(name_table(entries))


def _show_coverage(kind: Kind, pattern: str, json: bool) -> None:
    """With --json an object: the outcome is what was asked for."""
    from ...inputs.models.listing import coverage
    from ..report.ls import name_table

    if kind is not Kind.models:
        raise typer.BadParameter("only models have one", param_hint="--coverage")
    entries = {name: outcome for name, outcome in coverage().items() if fnmatch(name, pattern)}
    show_json(entries) if json else show(name_table(entries))


def _show_routing(pattern: str, json: bool) -> None:
    """With --json a list of objects: a routing adds parameters and MACs, and the numbers are part of the answer."""
    from ...routing import ROUTINGS
    from ...routing.catalogue import catalogue
    from ..report.ls import routing_table

    entries = catalogue({name: kind for name, kind in ROUTINGS.items() if fnmatch(name, pattern)})
    show_json(entries) if json else show(routing_table(entries))


def _entries(kind: Kind) -> dict[str, str]:
    if kind is Kind.recipes:
        from .recipe import headlines

        return headlines()
    if kind is Kind.boards:
        return _boards()
    if kind is Kind.models:
        from ...inputs.models.listing import known_models

        return dict.fromkeys(known_models(), "")
    return {name: _card(plugin) for name, plugin in _table(kind).items()}


def _boards() -> dict[str, str]:
    """The bundled device profiles: what they are, their memory and flash, and the arithmetics with figures."""
    from ...core.amounts import size
    from ...inputs.boards import bundled_boards, load_board

    entries = {}
    for name, path in bundled_boards().items():
        board = load_board(path)
        sizes = {"RAM": board.ram, "flash": board.flash}
        has = [f"{size(figure.value)} of {label}" for label, figure in sizes.items() if figure is not None]
        parts = [board.summary, ", ".join(has), f"estimates in {' and '.join(board.arithmetics)}"]
        entries[name] = "; ".join(part for part in parts if part)
    return entries


def _table(kind: Kind) -> Mapping[str, type]:
    from ...codecs import CODECS
    from ...schemes import SCHEMES

    tables: dict[Kind, Mapping[str, type]] = {
        Kind.schemes: SCHEMES,
        Kind.codecs: {name: type(codec) for name, codec in CODECS.items()},
    }
    return tables[kind]


def _card(plugin: type) -> str:
    """The first line of its file, which says what it is, and its own description, which says what its options are."""
    module = sys.modules[plugin.__module__].__doc__ or ""
    return " ".join([module.strip().split("\n")[0], *(plugin.__doc__ or "").split()])
