"""The result of `kdna run`: one row per stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count, kept, measured, percent
from ...core.measurements import MEASURES
from ...core.specs import required
from .convert import latency_line
from .figures import grid, note
from .plan import board_lines

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion

DECIDED = {
    True: "at this size the recipe shares kernels and fine-tunes",
    False: "at this size the recipe shares no kernels",
}


def run_report(conversion: Conversion) -> RenderableType:
    """Size, divergence and time of every stage, then the size of the result and the limits that it keeps."""
    done = required(conversion.report.run)
    before, after = conversion.plan.original, conversion.plan.planned
    first, rows = done.original, done.stages
    own = [name for name in MEASURES if any(name in row.from_original for row in rows)]
    labeled = [name for name in MEASURES if any(name in row.measures for row in rows)]
    classes = any(row.kl is not None for row in rows) or not any(row.logit_error is not None for row in rows)
    titles = [">agreement", ">KL, nats"] if classes else [">error"]
    titles += [f">{MEASURES[name].title}" for name in own]
    top1 = first is not None and first.task == "classify"
    titles += [">top-1"] if top1 else []
    titles += [f">{MEASURES[name].title}, labels" for name in labeled]
    table = grid("stage", ">parameters", ">bytes", *titles, "seconds")
    cells = ["-"] * (len(titles) - top1 - len(labeled))
    if first is not None:
        cells += [_share(first.top1, 2)] if top1 else []
        cells += [measured(name, first.measures[name]) if name in first.measures else "-" for name in labeled]
    table.add_row("original", count(before.params), count(before.bytes), *cells, "")
    for row in rows:
        cells = [row.stage, count(row.params), count(row.bytes)]
        cells += (
            [_share(row.agreement), "-" if row.kl is None else f"{row.kl:.4f}"]
            if classes
            else [_share(row.logit_error, 2)]
        )
        cells += [measured(name, row.from_original[name]) if name in row.from_original else "-" for name in own]
        cells += [_share(row.top1, 2)] if top1 else []
        cells += [measured(name, row.measures[name]) if name in row.measures else "-" for name in labeled]
        table.add_row(*cells, "earlier run" if row.done_before else f"{row.seconds:.0f}")
    lines = [f"parameters kept {kept(after.params, before.params)}, bytes kept {kept(after.bytes, before.bytes)}"]
    if after.bytes:
        lines[0] += f", 1/{before.bytes / after.bytes:.1f} of the original"
    lines += [DECIDED[done.shares]] if done.shares is not None else []
    notes = ["agreement and KL: with the original, on the images that each stage held out"] if classes else []
    notes += [f"top-1: on the {count(first.images)} images of --eval-data"] if first and top1 else []
    notes += [f"labels: on the {count(first.images)} images of --eval-data"] if first and labeled else []
    return Group(table, *map(note, notes), "", *lines, *latency_line(conversion), *board_lines(conversion.plan))


def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else percent(value, digits)
