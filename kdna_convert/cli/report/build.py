"""A layout beside the net that it takes the place of, in exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from .figures import count, grid, kept

if TYPE_CHECKING:  # this file imports torch, and a report needs none
    from ...api.build import Built


def build_table(built: Built) -> RenderableType:
    """What `kdna build` found: a row a net, and the second's share of the first."""
    before, after = built.before, built.after
    table = grid("net", ">parameters", ">bytes", ">MACs")
    for name, cost in ((built.plain, before), (built.name, after)):
        table.add_row(name, count(cost.params), count(cost.bytes), count(cost.macs))
    shares = (kept(after.params, before.params), kept(after.bytes, before.bytes), kept(after.macs, before.macs))
    table.add_row("", *shares)
    return table
