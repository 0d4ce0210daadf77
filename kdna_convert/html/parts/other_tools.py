"""kdna and other tools at the same sizes: agreement with the original against parameters and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...core.amounts import count, percent, short, size
from ...core.comparison import OURS, Axis, Comparison, ComparisonRow
from ..chart import INK, SERIES, TIP, Drawing, drawn_text
from ..material import Material
from ..part import Column, Part, filled, table
from .axes import log_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osv^D<>Ph*"


def comparison(material: Material) -> Part | None:
    """The charts and the table of `kdna compare`."""
    found = material.comparison
    if found is None:
        return None
    shown = drawings(found) if any(_score(row) is not None for row in found.rows[1:]) else []
    figures = [(f"{drawing.label}. {HOW}", drawing.svg) for drawing in shown]
    body = filled("figures.html", figures=figures) + _table(found)
    sentence = f"{found.model}, measured on {count(found.images)} images that no tool calibrated on, with the same"
    sentence = f"{sentence} {count(found.calibration)} calibration images for each tool. Higher is better."
    return Part("comparison", "kdna beside other tools", sentence, body)


NAMES: dict[Axis, str] = {"params": "parameters", "bytes": "bytes of the file"}
HOW = "kdna's lines are thick: one for budgets of parameters, one for budgets of bytes."


def drawings(found: Comparison) -> list[Drawing]:
    """The chart by parameters and that by bytes."""
    measured = [row for row in found.rows[1:] if _score(row) is not None]
    axes: tuple[Axis, ...] = ("params", "bytes")
    return [_drawing(found, measured, axis) for axis in axes]


def _measure(found: Comparison) -> str:
    return "Agreement with the original" if found.task == "classify" else "Closeness to the original"


def _score(row: ComparisonRow) -> float | None:
    """The agreement, or for other tasks 1 less the relative distance of the outputs."""
    if row.agreement is not None:
        return row.agreement
    return None if row.logit_error is None else 1 - min(row.logit_error, 1.0) ** 0.5


def _drawing(found: Comparison, rows: Sequence[ComparisonRow], axis: Axis) -> Drawing:
    whole = getattr(found.rows[0], axis)
    known = [
        row for row in rows if getattr(row, axis) and (axis == "bytes" or row.rung is None or row.rung.axis == axis)
    ]
    tips = {
        f"{TIP}{axis}-{place}": f"{row.line}: {percent(getattr(row, axis) / whole)}, {percent(_score(row) or 0.0, 2)}"
        for place, row in enumerate(known)
    }
    measure = _measure(found)
    return Drawing(
        partial(_draw, known, axis, whole, measure.lower()), f"{measure} by {NAMES[axis]} kept", tips, (7, 4)
    )


def _draw(rows: Sequence[ComparisonRow], axis: Axis, whole: int, measure: str, axes: Axes) -> None:
    titles = [*dict.fromkeys(row.line for row in rows)]
    others = [title for title in titles if not title.startswith(OURS)]
    for title in titles:
        own = title not in others
        color = INK if own else SERIES[others.index(title) % len(SERIES)]
        marker = "o" if own else MARKERS[1 + others.index(title) % (len(MARKERS) - 1)]
        points = sorted(
            (getattr(row, axis) / whole, _score(row) or 0.0, place)
            for place, row in enumerate(rows)
            if row.line == title
        )
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=color, lw=2.5 if own else 1)
        for number, (x, y, place) in enumerate(points):
            axes.plot(
                [x],
                [y],
                marker,
                ms=5,
                color=color,
                label=None if number else drawn_text(title),
                gid=f"{TIP}{axis}-{place}",
            )
    log_shares(axes, f"{NAMES[axis]} kept")
    axes.set_ylabel(measure)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    if titles:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _table(found: Comparison) -> Markup:
    columns = [
        Column("net"),
        Column("budget"),
        *(
            Column(name, True)
            for name in ("parameters", "bytes", "MACs", "ms", "top-1", "agreement", "KL", "relative error")
        ),
        Column(""),
    ]
    rows = [
        (
            row.title,
            row.rung.label if row.rung else "-",
            "-" if row.params is None else count(row.params),
            "-" if row.bytes is None else size(row.bytes),
            "-" if row.macs is None else short(row.macs),
            "-" if row.ms is None else f"{row.ms:.2f}",
            "-" if row.top1 is None else percent(row.top1, 2),
            "-" if row.agreement is None else percent(row.agreement, 2),
            "-" if row.kl is None else f"{row.kl:.3g}",
            "-" if row.logit_error is None else percent(row.logit_error, 2),
            row.problem or "",
        )
        for row in found.rows
    ]
    return table(columns, rows, f"Every net that was measured ({found.device})")
