"""`kdna shrink`: a converted folder cut to a smaller size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import COMMAND, output_path, progress_bar, show, show_json, tell, tell_remarks
from .options import Images, Run, Size, grouped


@grouped
def shrink(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that `kdna convert` wrote.")],
    images: Images,
    size: Size,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Cut a converted net to a smaller size, without converting the original again."""
    target, arguments = output_path(output, force), images.arguments | size.budget | run.arguments
    from ...api.shrink import shrink as stage
    from ...network.folder import require_free, save
    from ..report.shrink import shrink_report

    require_free(target, force)
    with progress_bar(run.quiet) as progress:
        conversion = stage(folder, **arguments, progress=progress)
    commands = [conversion.report.get("command"), ctx.meta[COMMAND]]
    conversion.report["command"] = "\n".join(command for command in commands if command)
    save(conversion, target, force=force)
    tell_remarks(conversion.report["shrink"]["notes"], conversion.report["shrink"]["skipped"])
    show_json(conversion.report) if run.json else show(shrink_report(conversion))
    tell(f"written to {target}", run.quiet)
