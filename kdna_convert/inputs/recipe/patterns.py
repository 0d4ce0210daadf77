"""Layer patterns: a string that matches layers, and how specific it is.

    layer3.0.conv2       exact: the name of one layer, as in `named_modules()`
    layer3.*             glob: `*` any characters, dots too; `?` one character; `[ab]` one of these
    re:layer[34]\\..*     regular expression, matched against the whole name
    type:Conv2d          the module's class name; `type:Conv2d*` matches Conv2dSame too

Where several patterns match a layer, the most specific one decides: exact, then glob, then `re:`, then `type:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import IntEnum
from fnmatch import fnmatchcase

from ...core.specs import Layer


class Precision(IntEnum):
    """How specific a pattern is: the smaller, the more specific."""

    EXACT = 0
    GLOB = 1
    REGEX = 2
    TYPE = 3
    NONE = 4  # no match


def precision(pattern: str) -> Precision:
    """The kind of a pattern."""
    if pattern.startswith("type:"):
        return Precision.TYPE
    if pattern.startswith("re:"):
        return Precision.REGEX
    return Precision.GLOB if any(sign in pattern for sign in "*?[") else Precision.EXACT


def check(pattern: str) -> str:
    """Return the pattern. Raises ValueError if it is empty, or an invalid regular expression."""
    if not pattern.removeprefix("re:").removeprefix("type:"):
        raise ValueError("the pattern is empty")
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


def matches(pattern: str, layer: Layer) -> bool:
    """Whether the pattern matches the layer."""
    kind = precision(pattern)
    if kind is Precision.TYPE:
        return fnmatchcase(layer.kind, pattern[5:])
    if kind is Precision.REGEX:
        return re.fullmatch(pattern[3:], layer.name) is not None
    return fnmatchcase(layer.name, pattern) if kind is Precision.GLOB else layer.name == pattern


def best(patterns: Iterable[str], layer: Layer) -> Precision:
    """The precision of the most specific pattern that matches the layer; NONE if none does."""
    return min((precision(pattern) for pattern in patterns if matches(pattern, layer)), default=Precision.NONE)


def suggestion(pattern: str, layers: Sequence[Layer]) -> str:
    """What to write instead of a pattern that matches nothing, as the end of a message."""
    names = [layer.name for layer in layers]
    if pattern.startswith("type:"):
        return f"; its types are {', '.join(sorted({layer.kind for layer in layers}))}"
    if any(name.startswith(f"{pattern}.") for name in names):
        return f"; '{pattern}.*' matches the layers inside it"
    close = get_close_matches(pattern.removeprefix("re:"), names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; its layers are named like {', '.join(names[:3])}"
