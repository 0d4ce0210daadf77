"""What `kdna bench` measured: the four numbers of every net, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .figures import SHARING_NOTE, count, grid, note, short

if TYPE_CHECKING:  # benchmark.py imports torch, and a report needs none
    from ...stages.evaluate.timing import Timing


def bench_table(timings: Sequence[Timing]) -> RenderableType:
    """One row a net; `ratio` is to the first net's time in the same rounds."""
    table = grid("net", ">parameters", ">bytes", ">MACs", ">ms", ">spread", ">images/s", ">ratio")
    for row in timings:
        cost = (count(row.params), count(row.bytes), short(row.macs))
        time = (f"{row.ms:.2f}", f"{row.spread_ms:.2f}", short(row.throughput), f"{row.ratio:.3f}")
        table.add_row(row.name, *cost, *time)
    first, *others = timings
    how = f"{first.device}; batch {first.batch}; median and middle half of {first.rounds} rounds"
    compared = [note(f"{how} in turn; ratio to {first.name}"), note(SHARING_NOTE)] if others else [note(how)]
    return Group(table, *compared)
