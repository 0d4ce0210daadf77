"""The result of `kdna build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from ...core.amounts import count, kept
from .figures import grid

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...api.build import Built


def build_table(built: Built) -> RenderableType:
    """One row per net, then the second as a share of the first."""
    before, after = built.before, built.after
    table = grid("net", ">parameters", ">bytes", ">MACs")
    for name, cost in ((built.plain, before), (built.name, after)):
        table.add_row(name, count(cost.params), count(cost.bytes), count(cost.macs))
    shares = (kept(after.params, before.params), kept(after.bytes, before.bytes), kept(after.macs, before.macs))
    table.add_row("", *shares)
    return table
