"""`kdna diff`: what turns one converted folder into another, as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import show, show_json
from .grouped import grouped
from .options import Force, OutputFlags


@grouped
def diff(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder that the receiver has.")],
    changed: Annotated[str, typer.Argument(metavar="CHANGED", help="Folder that it becomes.")],
    out: OutputFlags,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    force: Force = False,
) -> None:
    """Write an update: what turns one converted folder into another, as `kdna patch` does.

    Tensors that both folders have are left out. After a fine-tune of the adapters, only these are stored.

    Example:
        kdna diff half half-tuned -o tuned.update
    """
    from ...network.folder import diff as stage
    from ..report.export import update_line

    update = stage(base, changed, output, force=force)
    show_json(update) if out.json else show(update_line(update))
