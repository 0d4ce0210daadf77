"""The values of options: parsed or refused before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable

import typer

Text = str | None


def numbers(text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as floats."""
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from None


def device(text: str) -> str:
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:1`."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise typer.BadParameter(f"{text!r} is none of auto, cpu, cuda, cuda:1, mps", param_hint="--device")
    return text


def words(text: str) -> tuple[str, ...]:
    """`batch,height` as words; an empty text has none."""
    return tuple(text.replace(",", " ").split())


def dimensions(text: str) -> tuple[int, ...]:
    """`3,224,224`, or `224` for the height and width of all channels."""
    return tuple(int(number) for number in numbers(text))


def checked(parse: str, *rest: int) -> Callable[[Text], Text]:
    """A callback that refuses a value before anything is loaded, unless inputs.recipe's function `parse` reads it."""

    def check(text: Text) -> Text:
        if text is not None:
            require_form(text, parse, *rest)
        return text

    return check


def require_form(text: str, parse: str, *rest: int, flag: str | None = None) -> None:
    """Raise a usage error unless inputs.recipe's function `parse` reads the text."""
    from ...core.errors import KdnaError
    from ...inputs import recipe

    try:
        getattr(recipe, parse)(text, *rest)
    except KdnaError as error:
        raise typer.BadParameter(error.message, param_hint=flag) from None
