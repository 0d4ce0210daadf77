"""The result of `kdna bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count, short
from .figures import SHARING_NOTE, grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...stages.evaluate.timing import Timing


def bench_table(timings: Sequence[Timing]) -> RenderableType:
    """One row per net. `ratio` is relative to the time of the first net in the same rounds."""
    table = grid("net", ">parameters", ">bytes", ">MACs", ">ms", ">spread", ">images/s", ">ratio")
    for row in timings:
        cost = (count(row.params), count(row.bytes), short(row.macs))
        time = (f"{row.ms:.2f}", f"{row.spread_ms:.2f}", short(row.throughput), f"{row.ratio:.3f}")
        table.add_row(row.name, *cost, *time)
    first, *others = timings
    how = f"{first.device}, batch {first.batch}; ms: median, spread: interquartile range of {first.rounds} rounds"
    compared = [note(f"{how}; ratio: to {first.name}"), note(SHARING_NOTE)] if others else [note(how)]
    return Group(table, *compared)
