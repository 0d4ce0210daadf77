"""`kdna patch`: the folder that an update makes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import show, show_json
from .grouped import grouped
from .options import OutputFlags


@grouped
def patch(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder that the update was made from.")],
    update: Annotated[str, typer.Argument(metavar="UPDATE", help="File that `kdna diff` wrote.")],
    out: OutputFlags,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write.")],
) -> None:
    """Write the folder that an update makes of another, bit for bit. Nothing is run.

    Example:
        kdna patch half tuned.update -o half-tuned
    """
    from ...network.folder import patch as stage

    folder = stage(base, update, output)
    show_json({"folder": str(folder)}) if out.json else show(str(folder))
