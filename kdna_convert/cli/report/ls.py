"""Names and what they are: the plainest table, and that of the routings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .figures import count, grid, note

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...routing.catalogue import Entry


def name_table(entries: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, meaning in entries.items():
        table.add_row(Text(name), Text(meaning))  # plain: W[o,i] is not markup
    return table


def routing_table(entries: Sequence[Entry]) -> RenderableType:
    """A row a routing; parameters and multiply-adds are those that its defaults add to the example below."""
    table = grid("routing", ">adds", ">MACs", "stands at", "what it is")
    for entry in entries:
        takes = ", ".join(entry.takes)
        table.add_row(entry.name, count(entry.parameters_added), count(entry.macs_added), takes, entry.summary)
    examples: dict[str, list[str]] = {entry.example: [] for entry in entries}
    for entry in entries:
        examples[entry.example].append(entry.name)
    said = "; ".join(f"{', '.join(names)}: {example}" for example, names in examples.items())
    return Group(table, "", note(f"parameters and multiply-adds of an image, added by the defaults to: {said}"))
