"""What a recipe does with each layer of a net: `kdna recipe validate --model`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from ...inputs.recipe import Assignment
from .figures import grid


def assignment_table(assignments: Sequence[Assignment], codec: str | None = None) -> RenderableType:
    """Scheme, routing and family of each layer by the recipe, and the codec that stores them all."""
    table = grid("layer", "scheme", "options", "routing", "family", "skipped")
    for row in assignments:
        options = ", ".join(f"{key}={value}" for key, value in row.options.items())
        cells = (row.layer, row.scheme or "", options, row.routing or "", row.family or "", row.reason or "")
        table.add_row(*cells, style="dim" if row.reason else None)
    converted = sum(row.reason is None for row in assignments)
    coded = [] if codec is None else [f"all {len(assignments)} layers will be coded ({codec}), converted or not"]
    return Group(table, "", f"{converted} of {len(assignments)} layers will be converted", *coded)
