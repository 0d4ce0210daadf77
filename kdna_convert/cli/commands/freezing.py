"""`kdna freeze`: a routed folder made an ordinary net again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import COMMAND, output_path, progress_bar, show, show_json, tell
from .options import Images, Run, grouped


@grouped
def freeze(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder whose net has a routing.")],
    images: Images,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Replace a routing by its mean over images: ordinary kernels, at the speed of the original."""
    target, arguments = output_path(output, force), images.required | run.arguments
    from ...api.freeze import freeze as stage
    from ...network.folder import require_free, save
    from ..report.freeze import freeze_report

    require_free(target, force)
    with progress_bar(run.quiet) as progress:
        conversion, frozen = stage(folder, **arguments, progress=progress)
    commands = [conversion.report.get("command"), ctx.meta[COMMAND]]
    conversion.report["command"] = "\n".join(command for command in commands if command)
    save(conversion, target, force=force)
    show_json(frozen) if run.json else show(freeze_report(conversion.plan, frozen))
    tell(f"written to {target}", run.quiet)
