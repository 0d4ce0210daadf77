"""Charts as inline SVG, drawn by matplotlib in the colors of the page, in which points can be focused and read."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..core.shown import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colors that charts are drawn in -> those of the page, which differ between light and dark. The series are those of
# Okabe and Ito (2008), which color-blind people can tell apart.
INK, MUTED, GRID = "kdna:ink", "kdna:muted", "kdna:grid"
SERIES = tuple(f"kdna:series{number}" for number in range(8))
_PAGE = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    color: f"var(--c{number})" for number, color in enumerate(SERIES)
}
# Stand in for the colors of the page, which matplotlib does not know.
_STAND_INS = {color: f"#0400{number:02x}" for number, color in enumerate(_PAGE)}
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


# What matplotlib would write of itself and of the time, by the kind of file.
_SILENT: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Drawing:
    """What a chart shows.

    Attributes:
        draw: Draws on the axes, in the colors of this file.
        label: What it shows, for those who do not see it.
        tips: Text for an artist, by the gid that `draw` gave it, which begins with TIP.
        size: (width, height), in inches of 72 units.
    """

    draw: Callable[[Axes], Any]
    label: str
    tips: Mapping[str, str] = field(default_factory=dict)
    size: tuple[float, float] = (7, 3)

    @property
    def svg(self) -> Markup:
        """The chart as an element of a page."""
        return _inline(_svg([self], _STAND_INS, self.label), self.label, self.tips)


def chart(
    draw: Callable[[Axes], Any], label: str, tips: Mapping[str, str] | None = None, size: tuple[float, float] = (7, 3)
) -> Markup:
    """A chart as an element of a page. The arguments are those of Drawing."""
    return Drawing(draw, label, tips or {}, size).svg


def chart_file(path: Path, drawings: Sequence[Drawing], title: str | None = None) -> None:
    """Write charts, one below the other, as .svg, .png or .pdf, in the light colors of the page on white.

    Equal charts give equal files.
    """
    colors, paper = _light_colors()
    kind, label = path.suffix.removeprefix(".").lower() or "svg", title or drawings[0].label
    if kind == "svg":
        text = _svg(drawings, colors, label, title, paper)
        path.write_text(text.replace(">", f' role="img" aria-label="{escape(label)}">', 1), encoding="utf-8")
    else:
        path.write_bytes(_drawn(drawings, colors, label, title, paper, kind))


def _light_colors() -> tuple[dict[str, str], str]:
    """The light colors of the page, and that of its paper."""
    style = files(__package__).joinpath("templates").joinpath("page.css").read_text("utf-8")
    light = dict(re.findall(r"--(\w+): light-dark\((#\w+)", style))
    names = {color: re.sub(r"var\(--|\)", "", name.replace("currentColor", "ink")) for color, name in _PAGE.items()}
    return {color: light[name] for color, name in names.items()}, light["paper"]


def _svg(
    drawings: Sequence[Drawing], colors: Mapping[str, str], label: str, title: str | None = None, paper: str = "none"
) -> str:
    """The SVG element as matplotlib writes it."""
    text = _drawn(drawings, colors, label, title, paper, "svg").decode()
    return text[text.index("<svg") :]


def _drawn(
    drawings: Sequence[Drawing], colors: Mapping[str, str], label: str, title: str | None, paper: str, kind: str
) -> bytes:
    """The file as matplotlib writes it; the label makes the ids of an SVG."""
    import matplotlib as mpl
    from matplotlib.colors import get_named_colors_mapping
    from matplotlib.figure import Figure

    known = get_named_colors_mapping()
    for name, color in colors.items():  # one by one, which clears the colors that matplotlib has looked up
        known[name] = color
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        sizes = [each.size for each in drawings]
        figure = Figure(figsize=(max(w for w, _ in sizes), sum(h for _, h in sizes)), layout="constrained")
        figure.set_facecolor(paper)
        rows = figure.subplots(len(sizes), squeeze=False, height_ratios=[height for _, height in sizes])
        for drawing, axes in zip(drawings, rows.flat, strict=True):
            drawing.draw(axes)
        if title is not None:
            figure.suptitle(drawn_text(title, 80))
        made = io.BytesIO()
        figure.savefig(made, format=kind, dpi=150, metadata=_SILENT[kind])
    return made.getvalue()


def drawn_text(text: str, longest: int = 32) -> str:
    """A name as a chart draws it: one short line without mathematics."""
    text = shown(text)
    return (text if len(text) <= longest else f"{text[: longest - 1]}…").replace("$", r"\$")


def _inline(text: str, label: str, tips: Mapping[str, str]) -> Markup:
    """The SVG as an element of the page."""
    for color, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, _PAGE[color])
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
