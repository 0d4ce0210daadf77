"""`kdna freeze`: a routed folder to an ordinary net."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import output_path, reporting, save_folder, show, show_json, tell_written
from .grouped import grouped
from .options import Force, ImagesFlags, OutputFolder, RunFlags, TrustFlags


@grouped
def freeze(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Converted folder with a routing.")],
    images: ImagesFlags,
    run: RunFlags,
    trust: TrustFlags,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Replace a routing by its mean over images, which gives ordinary kernels.

    Example:
        kdna freeze routed --data kdna:digits/train -o frozen
    """
    target, arguments = output_path(output, force), images.required | run.arguments | trust.arguments
    from ...api.freeze import freeze as stage
    from ...network.folder import require_free
    from ..report.freeze import freeze_report

    require_free(target, force)
    with reporting(run.quiet) as progress:
        conversion, frozen = stage(folder, **arguments, progress=progress)
    save_folder(conversion, target, ctx, force)
    show_json(frozen) if run.json else show(freeze_report(conversion.plan, frozen))
    tell_written(conversion, target, run.quiet)
