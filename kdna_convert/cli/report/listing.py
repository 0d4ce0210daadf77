"""Names and what they are: the plainest table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text


def listing(entries: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, meaning in entries.items():
        table.add_row(Text(name), Text(meaning))  # plain: W[o,i] is not markup
    return table
