"""`kdna trust`: let a converted folder run the code that it names."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import in_terminal, show, show_json, tell
from .grouped import grouped
from .options import Folder, OutputFlags

NOT_NEEDED = "{folder} runs no code of its own; nothing to trust"
ASK = "run this code whenever {folder} is read"


@grouped
def trust(
    folder: Folder,
    out: OutputFlags,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let a converted folder run the code that it names.

    Shows that code and asks. Holds until the folder or the source file changes.
    Folders that kdna wrote for you on this machine are trusted already.

    Example:
        kdna trust half --yes
    """
    from ...network.folder import read_claim, remember
    from ..report.trust import claim_table

    claim = read_claim(folder)
    show_json(claim) if out.json else show(claim_table(claim))
    if claim.runs is None:
        tell(NOT_NEEDED.format(folder=folder), out.quiet)
        return
    if not yes and not in_terminal():
        raise typer.BadParameter("required where nobody can be asked", param_hint="--yes")
    if not yes and not typer.confirm(ASK.format(folder=folder), err=True):
        raise typer.Exit(2)
    tell(f"recorded in {remember(claim)}", out.quiet)
