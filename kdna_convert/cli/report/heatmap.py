"""A similarity matrix in the terminal, as colors with digits or shades."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.color import Color
from rich.style import Style
from rich.text import Text

from ...core.shown import shown

Rows = Sequence[Sequence[float | None]]

DIGITS_UP_TO = 20  # members: two digits and a space each fit beside a name in 80 columns
CELLS = 60  # columns of shades; larger matrices are averaged down to this many
SHADES = " ░▒▓█"
WIDTH, SHORTEST_NAME = 80, 16
# Dark blue to yellow, as viridis: the ends and three points between.
RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def heatmap(names: Sequence[str], similarity: Rows, order: Sequence[int]) -> Text:
    """Rows and columns in `order`, so that families are blocks on the diagonal. Values are in [0, 1]; None is blank.

    Up to 20 members, a cell is the value in hundredths. Up to 60, it is a shade; above that, a shade of an average.
    """
    matrix = [[similarity[row][column] for column in order] for row in order]
    if len(matrix) <= DIGITS_UP_TO:
        return _digits([names[row] for row in order], matrix)
    return _shades([names[row] for row in order], matrix)


def _digits(names: Sequence[str], matrix: Rows) -> Text:
    text, width = Text(no_wrap=True), _name_width(names, 3 * len(names))
    for name, row in zip(names, matrix, strict=True):
        text.append(_fit(name, width) + " ")
        for value in row:
            text.append(" · " if value is None else f"{min(99, round(100 * value)):2d} ", _style(value))
        text.append("\n")
    text.append("in hundredths; 99 is the maximum", "dim")
    return text


def _shades(names: Sequence[str], matrix: Rows) -> Text:
    bins = _bins(len(matrix))
    text, width = Text(no_wrap=True), _name_width(names, len(bins))
    for low, high in bins:
        text.append(_fit(names[low], width) + " ")
        for left, right in bins:
            value = _mean([matrix[i][j] for i in range(low, high) for j in range(left, right)])
            shade = "·" if value is None else SHADES[min(len(SHADES) - 1, int(value * len(SHADES)))]
            text.append(shade, _style(value, solid=True))
        text.append("\n")
    pooled = f"; a cell averages up to {max(high - low for low, high in bins)} layers a side"
    text.append(f"0 '{SHADES}' 1{pooled if len(bins) < len(matrix) else ''}", "dim")
    return text


def _bins(members: int) -> list[tuple[int, int]]:
    cells = min(members, CELLS)
    edges = [members * cell // cells for cell in range(cells + 1)]
    return list(pairwise(edges))


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _name_width(names: Sequence[str], columns: int) -> int:
    """Columns for the names: as many as the matrix leaves."""
    return min(max(len(shown(name)) for name in names), max(SHORTEST_NAME, WIDTH - 1 - columns))


def _fit(name: str, width: int) -> str:
    """The name, cut at its beginning if it is too long."""
    name = shown(name)
    return (name if len(name) <= width else "…" + name[1 - width :]).ljust(width)


def _style(value: float | None, solid: bool = False) -> Style:
    """The color of a value. `solid` hides the character, which is for terminals without color."""
    if value is None:
        return Style(dim=True)
    place = min(max(value, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True))
    background = Color.from_rgb(red, green, blue)
    ink = background if solid else Color.parse("black" if place > 2 else "white")
    return Style.from_color(ink, background)
