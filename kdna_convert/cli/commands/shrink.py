"""`kdna shrink`: a converted folder, cut to a smaller size."""

from __future__ import annotations

import typer

from .console import output_path, reporting, save_folder, show, show_json, tell_remarks, tell_written
from .goals import SizeFlags
from .grouped import grouped
from .options import Folder, Force, ImagesFlags, OutputFolder, RunFlags, TrustFlags


@grouped
def shrink(
    ctx: typer.Context,
    folder: Folder,
    images: ImagesFlags,
    size: SizeFlags,
    run: RunFlags,
    trust: TrustFlags,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Reduce a converted net to a smaller size. The original is not converted again.

    Example:
        kdna shrink half --data kdna:digits/train --target-params 0.3 -o third
    """
    target, arguments = output_path(output, force), images.arguments | size.budget | run.arguments | trust.arguments
    from ...api.shrink import shrink as stage
    from ...core.specs import required
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.shrink import shrink_report

    require_free(target, force)
    with reporting(run.quiet) as progress:
        conversion = stage(folder, **arguments, progress=progress)
    save_folder(conversion, target, ctx, force)
    done = required(conversion.report.shrink)
    tell_remarks(done.notes, done.skipped)
    show_json(to_plain(conversion.report)) if run.json else show(shrink_report(conversion))
    tell_written(conversion, target, run.quiet)
