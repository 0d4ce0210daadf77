"""What the shell completes: recipes, schemes, codecs and codes. typer filters them; none imports torch."""

from __future__ import annotations

from typing import get_args

from ...core.errors import CODES

Candidate = tuple[str, str]  # a name, and its description where the shell shows one


def recipe_names() -> list[Candidate]:
    from .recipe import headlines

    return list(headlines().items())


def scheme_names() -> list[Candidate]:
    from ...inputs.recipe.schema import SchemeOrDense

    return [(name, "") for name in get_args(SchemeOrDense)]


def codec_names() -> list[Candidate]:
    from ...core.plugin_names import CodecName

    return [(name, "") for name in get_args(CodecName)]


def board_names() -> list[Candidate]:
    from ...inputs.boards import bundled_boards

    return [(name, "") for name in bundled_boards()]


def routing_names() -> list[Candidate]:
    from ...inputs.recipe.schema import RoutingOrNone

    return [(name, "") for name in get_args(RoutingOrNone)]


def code_names() -> list[Candidate]:
    return list(CODES.items())
