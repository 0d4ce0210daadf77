"""`kdna verify`: checks of a converted folder."""

from __future__ import annotations

import typer

from .console import show, show_json, tell
from .options import Folder, OutputFlags, TrustFlags, grouped


@grouped
def verify(folder: Folder, out: OutputFlags, trust: TrustFlags) -> None:
    """Check the files and sizes that a folder records. A failed check exits with 2.

    Example:
        kdna verify half
    """
    from ...network.folder import verify as stage
    from ..report.verify import check_table

    checks = stage(folder, **trust.arguments)
    show_json(checks) if out.json else show(check_table(checks))
    if not all(check.ok for check in checks):
        tell("restore the folder from a copy, or convert again", out.quiet)
        raise typer.Exit(2)
