"""The result of `kdna compare`: a table and a verdict per budget, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.amounts import count, measured, short
from ...core.comparison import OURS
from ...core.measurements import MEASURES
from .figures import grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...api.compare import Comparison, ComparisonRow

COLUMNS = ("net", ">params", ">kept", ">bytes", ">MACs", ">ms")
CLASSES = (">top-1", ">agree", ">KL")
LEGEND = (
    "kept, top-1, agree (agreement with the original): percent. KL: KL(original, net), nats per image. ms: batch 1; "
    "the net of kdna is folded. s: seconds of compression. +BN: batch norms re-estimated on the calibration images."
)


def comparison_report(comparison: Comparison) -> RenderableType:
    """Table and verdict of each budget; first the nets without a budget."""
    parts: list[RenderableType] = []
    for rung in (None, *comparison.rungs):
        rows = [row for row in comparison.rows if row.rung == rung]
        if rows:
            title = rung.label if rung else "original, and nets of one size"
            parts += [Text(title, style="bold"), _table(rows, comparison.task)]
            parts += [note(f"  {row.title}: {row.problem}") for row in rows if row.problem]
            parts += [Text(line) for line in [verdict(rows)] if rung and line] + [""]
    on = f"task: {comparison.task}; {count(comparison.images)} images"
    on += f"; {count(comparison.calibration)} other images for calibration"
    return Group(*parts, note(f"{on}; {comparison.device}. {LEGEND}"))


def verdict(rows: Sequence[ComparisonRow]) -> str | None:
    """Whether kdna is better than all others by agreement and by KL. None if there is nothing to compare."""
    measured = [row for row in rows if row.agreement is not None and row.kl is not None]
    own = next((row for row in measured if row.peer == OURS), None)
    others = [row for row in measured if row.peer != OURS]
    if own is None or not others:
        return None
    ahead = [row for row in others if (row.agreement or 0) > (own.agreement or 0)]
    closer = [row for row in others if row not in ahead and (row.kl or 0) < (own.kl or 0)]
    if not ahead and not closer:
        return "kdna is ahead of all others by agreement and by KL"
    lags = [f"behind {row.title} by {100 * ((row.agreement or 0) - (own.agreement or 0)):.2f} points" for row in ahead]
    lags += [f"behind {row.title} by KL" for row in closer]
    return f"kdna is {', '.join(lags)}"


def _table(rows: Sequence[ComparisonRow], task: str) -> Table:
    """Classes have top-1, agreement and KL; other tasks the error of the outputs and their own measures."""
    names = [name for name in MEASURES if any(name in row.measures for row in rows)]
    table = grid(*COLUMNS, *(CLASSES if task == "classify" else (">error",)), *(MEASURES[n].title for n in names), ">s")
    table.padding = (0, 1, 0, 0)
    for row in rows:
        own = row.peer == OURS
        measures = [measured(name, row.measures[name]) if name in row.measures else "-" for name in names]
        seconds = "-" if row.seconds is None else f"{row.seconds:.0f}"
        answers = _answers(row) if task == "classify" else [_percent(row.logit_error)]
        table.add_row(*_cells(row), *answers, *measures, seconds, style="bold" if own else None)
    return table


def _cells(row: ComparisonRow) -> list[str]:
    return [
        row.title,
        "-" if row.params is None else short(row.params),
        "-" if row.kept is None else f"{100 * row.kept:.1f}",
        "-" if row.bytes is None else f"{short(row.bytes)}B",
        "-" if row.macs is None else short(row.macs),
        "-" if row.ms is None else f"{row.ms:.2f}",
    ]


def _answers(row: ComparisonRow) -> list[str]:
    return [_percent(row.top1), _percent(row.agreement), "-" if row.kl is None else f"{row.kl:.3f}"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def plot(comparison: Comparison, path: Path) -> None:
    """Draw the charts of the page as SVG, PNG or PDF by the name of the file."""
    from ...html.chart import chart_file
    from ...html.parts.other_tools import drawings

    chart_file(path, drawings(comparison), f"{comparison.model}, {count(comparison.images)} images")
