"""`kdna pull`: a converted folder from the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import output_path, show, show_json
from .grouped import grouped
from .options import Force, OutputFlags, OutputFolder


@grouped
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository OWNER/NAME.")],
    out: OutputFlags,
    output: OutputFolder = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit. Default: main.")] = None,
    force: Force = False,
) -> None:
    """Copy a converted net from the Hugging Face Hub to a folder. Nothing in it is run.

    Example:
        kdna pull OWNER/resnet50-half -o half
    """
    target = output_path(output, force)
    from ...api.hub import pull as stage

    folder = stage(repo, target, force=force, revision=revision)
    show_json({"folder": str(folder)}) if out.json else show(str(folder))
