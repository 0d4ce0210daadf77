"""What a recipe does with each layer of a net: `kdna recipe validate --model`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from ...inputs.recipe import Assignment
from .figures import grid


def assignment_table(assignments: Sequence[Assignment]) -> RenderableType:
    """What a recipe wants of each layer."""
    table = grid("layer", "scheme", "options", "routing", "family", "left out")
    for row in assignments:
        options = ", ".join(f"{key}={value}" for key, value in row.options.items())
        cells = (row.layer, row.scheme or "", options, row.routing or "", row.family or "", row.reason or "")
        table.add_row(*cells, style="dim" if row.reason else None)
    wanted = sum(row.reason is None for row in assignments)
    return Group(table, "", f"{wanted} of {len(assignments)} layers will be converted")
