"""The result of `kdna verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .figures import grid

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Check


def check_table(checks: Sequence[Check]) -> RenderableType:
    """One line per check, then how many failed."""
    table = grid("check", "", "result")
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail, style=None if check.ok else "bold red")
    failed = sum(not check.ok for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    return Group(table, "", verdict)
