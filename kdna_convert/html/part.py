"""A part of a page, and the templates that parts are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..core.shown import shown
from .material import Material

EMPTY = Markup()


@dataclass(frozen=True)
class Part:
    """A heading, a sentence that says what the part means, and what is shown.

    Attributes:
        key: The id of the part in the page.
        title: Its heading.
        sentence: What it means; or, of a part with nothing to show, why, and the command that would fill it.
        body: What is shown, empty for nothing.
    """

    key: str
    title: str
    sentence: str
    body: Markup = EMPTY


# Makes a part of what is known; None where the page is of something else.
MakePart = Callable[[Material], Part | None]


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it holds numbers, which are aligned to the right."""

    title: str
    number: bool = False


def pairs(facts: Sequence[tuple[str, str]]) -> Markup:
    """Pairs of text as JSON, for an attribute that the page's script reads."""
    return escape(json.dumps([[shown(name), shown(value)] for name, value in facts]))


def prose(text: str) -> Markup:
    """Text in which backticks enclose code."""
    parts = [escape(shown(part)) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


@cache
def templates() -> Environment:
    """The templates of this package. Text of a user is escaped, and its control characters are shown as escapes."""
    made = Environment(
        loader=PackageLoader("kdna_convert.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value, lines=True) if type(value) is str else value,
    )
    made.filters |= {"pairs": pairs, "prose": prose}
    return made


def filled(template: str, **values: Any) -> Markup:
    """A template of this package with these values."""
    return Markup(templates().get_template(template).render(**values))


def table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], caption: str, folded: bool = False) -> Markup:
    """A table; `folded` shows its caption alone until it is opened. The first column heads the rows."""
    return filled("table.html", columns=columns, rows=rows, caption=caption, folded=folded)
