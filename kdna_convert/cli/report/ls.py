"""Tables of names: of `kdna ls`, `kdna explain` and `kdna env`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from ...core.amounts import count
from .figures import grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...routing.catalogue import RoutingEntry


def name_table(entries: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, meaning in entries.items():
        table.add_row(name, meaning)
    return table


def routing_table(entries: Sequence[RoutingEntry]) -> RenderableType:
    """One row per routing. Parameters and MACs are what its defaults add to the example below."""
    table = grid("routing", ">adds", ">MACs", "layers", "description")
    for entry in entries:
        takes = ", ".join(entry.takes)
        table.add_row(entry.name, count(entry.parameters_added), count(entry.macs_added), takes, entry.summary)
    examples: dict[str, list[str]] = {entry.example: [] for entry in entries}
    for entry in entries:
        examples[entry.example].append(entry.name)
    added_to = "; ".join(f"{', '.join(names)}: {example}" for example, names in examples.items())
    return Group(table, "", note(f"parameters, and MACs per image, that the default options add to: {added_to}"))
