"""Charts as inline SVG, drawn by matplotlib in the colors of the page, in which points can be focused and read."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..core.shown import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a chart is drawn with -> the color of the page, which differs between light and dark. The series are those of
# Okabe and Ito (2008), which color-blind people can tell apart.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0400{number:02x}" for number in range(8))
_PAGE = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    color: f"var(--c{number})" for number, color in enumerate(SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
TIP = "tip-"


def chart(
    draw: Callable[[Axes], Any], label: str, tips: Mapping[str, str] | None = None, size: tuple[float, float] = (7, 3)
) -> Markup:
    """A chart as SVG.

    Args:
        draw: Draws on the axes, in the colors of this file.
        label: What it shows, for those who do not see it.
        tips: Text for an artist, by the gid that `draw` gave it, which begins with TIP.
        size: (width, height), in inches of 72 units.
    """
    return _inline(_drawn(draw, label, size), label, tips or {})


def chart_file(draw: Callable[[Axes], Any], label: str, size: tuple[float, float] = (7, 3)) -> str:
    """The same as the text of an SVG file, in the light colors of the page on white."""
    text = _drawn(draw, label, size)
    style = files(__package__).joinpath("templates").joinpath("page.css").read_text("utf-8")
    light = dict(re.findall(r"--(\w+): light-dark\((#\w+)", style))
    for color, name in _PAGE.items():
        text = text.replace(color, light[re.sub(r"var\(--|\)", "", name.replace("currentColor", "ink"))])
    return text.replace(">", f' style="background: {light["paper"]}" role="img" aria-label="{escape(label)}">', 1)


def _drawn(draw: Callable[[Axes], Any], label: str, size: tuple[float, float]) -> str:
    """The SVG element as matplotlib writes it; the label makes its ids."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def drawn_text(text: str, longest: int = 32) -> str:
    """A name as a chart draws it: one short line without mathematics."""
    text = shown(text)
    return (text if len(text) <= longest else f"{text[: longest - 1]}…").replace("$", r"\$")


def _inline(text: str, label: str, tips: Mapping[str, str]) -> Markup:
    """The SVG as an element of the page."""
    for color, name in _PAGE.items():
        text = text.replace(color, name)
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*pt"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*pt"', r"\1", text)
    text = re.sub(r" id=\"(?!tip-|[pmhC][0-9a-zA-Z]*\")[^\"]*\"", "", text)  # other charts have the same ones
    text = text.replace("<svg ", f'<svg class="chart" role="group" aria-label="{escape(label)}" ', 1)
    for gid, tip in tips.items():
        told = escape(shown(tip))
        opened = f'<g class="tip" tabindex="0" role="img" aria-label="{told}"><title>{told}</title>'
        text = text.replace(f'<g id="{gid}">', opened)
    return Markup(re.sub(r"\n\s*", "\n", text))
