"""What a folder would run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ...network.folder import Claim

NOTHING = "nothing: a listed architecture"


def claim_table(claim: Claim) -> Table:
    """The name in the folder, the code that it runs, and the hashes of both."""
    rows = {
        "model": claim.model,
        "code": claim.runs or NOTHING,
        "folder": claim.sha256,
        "file": claim.file or "-",
        "hash of the file": claim.file_sha256 or "-",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, Text(value, overflow="fold"))
    return table
