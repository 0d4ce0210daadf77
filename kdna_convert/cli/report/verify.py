"""The result of `kdna verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .figures import grid

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Check


def check_table(checks: Sequence[Check]) -> RenderableType:
    """One line per check, then how many failed, and how many statements are not checked."""
    table = grid("check", "", "result")
    for check in checks:
        mark = "ok" if check.checked else "claimed"
        table.add_row(check.name, mark if check.ok else "FAILED", check.detail, style=None if check.ok else "bold red")
    failed, claimed = sum(not check.ok for check in checks), sum(not check.checked for check in checks)
    made = len(checks) - claimed
    verdict = f"{failed} of {made} checks failed" if failed else f"all {made} checks passed"
    rest = {0: "", 1: "; 1 statement is not checked"}.get(claimed, f"; {claimed} statements are not checked")
    return Group(table, "", f"{verdict}{rest}")
