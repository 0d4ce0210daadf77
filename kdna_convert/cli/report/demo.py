"""The result of `kdna demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count, kept, percent, short
from .figures import SHARING_NOTE, grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...api.demo import Demo


def demo_report(demo: Demo) -> RenderableType:
    """One row per net. `kept` is relative to the original."""
    table = grid("net", ">parameters", ">kept", ">bytes", ">MACs", ">ms", ">accuracy")
    first = demo.rows[0]
    for row in demo.rows:
        size = (count(row.params), kept(row.params, first.params), count(row.bytes))
        table.add_row(row.name, *size, short(row.macs), f"{row.ms:.2f}", percent(row.accuracy, 2))
    passed = sum(check.ok for check in demo.checks)
    closing = f"{passed} of {len(demo.checks)} checks of the folder passed; {demo.seconds:.0f} s"
    where = [f"converted net: {demo.folder}"] if demo.folder else []
    return Group(table, "", closing, *where, note(SHARING_NOTE))
