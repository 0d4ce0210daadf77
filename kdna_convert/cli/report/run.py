"""The result of `kdna run`: one row per stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.specs import required
from .figures import count, grid, kept, note, percent

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion

DECIDED = {
    True: "at this size the recipe shares kernels and fine-tunes",
    False: "at this size the recipe shares no kernels",
}


def run_report(conversion: Conversion) -> RenderableType:
    """Size, divergence and time of every stage, then the size of the result."""
    done = required(conversion.report.run)
    before, after = conversion.plan.original, conversion.plan.planned
    measured = done.original
    table = grid(
        "stage", ">parameters", ">bytes", ">agreement", ">KL, nats", *([">top-1"] if measured else []), "seconds"
    )
    top1 = [_share(measured.top1, 2)] if measured else []
    table.add_row("original", count(before.params), count(before.bytes), "-", "-", *top1, "")
    for row in done.stages:
        cells = [row.stage, count(row.params), count(row.bytes)]
        cells += [_share(row.agreement), "-" if row.kl is None else f"{row.kl:.4f}"]
        top1 = [_share(row.top1, 2)] if measured else []
        table.add_row(*cells, *top1, "earlier run" if row.done_before else f"{row.seconds:.0f}")
    lines = [f"parameters kept {kept(after.params, before.params)}, bytes kept {kept(after.bytes, before.bytes)}"]
    if after.bytes:
        lines[0] += f", 1/{before.bytes / after.bytes:.1f} of the original"
    lines += [DECIDED[done.shares]] if done.shares is not None else []
    notes = ["agreement and KL: with the original, on the images that each stage held out"]
    notes += [f"top-1: on the {count(measured.images)} images of --eval-data"] if measured else []
    return Group(table, *map(note, notes), "", *lines)


def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else percent(value, digits)
