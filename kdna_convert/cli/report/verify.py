"""The checks of a folder, a line each, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .figures import grid

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Check


def check_table(checks: Sequence[Check]) -> RenderableType:
    """Every claim of a folder that was checked, and what was found."""
    table = grid("check", "", "found")
    for check in checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail, style=None if check.ok else "bold red")
    failed = sum(not check.ok for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    return Group(table, "", verdict)
