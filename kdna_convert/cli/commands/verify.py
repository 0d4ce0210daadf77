"""`kdna verify`: every claim of a folder, checked."""

from __future__ import annotations

import typer

from .console import show, show_json, tell
from .options import Folder, Output, grouped


@grouped
def verify(folder: Folder, out: Output) -> None:
    """Check every claim a folder makes about itself; a failed check is exit code 2."""
    from ...network.folder import verify as stage
    from ..report.verify import check_table

    checks = stage(folder)
    show_json(checks) if out.json else show(check_table(checks))
    if not all(check.ok for check in checks):
        tell("restore the folder, or convert again", out.quiet)
        raise typer.Exit(2)
