"""`kdna verify`: checks of a converted folder."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import reporting, show, show_json, tell
from .grouped import grouped
from .options import Folder, ImagesFlags, RunFlags, TrustFlags


@grouped
def verify(
    folder: Folder,
    images: ImagesFlags,
    run: RunFlags,
    trust: TrustFlags,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use N images only, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
) -> None:
    """Check what a folder says of itself, and list what is not checked. A failed check exits with 2.

    With --data, agreement and KL are measured again and compared with those in report.json.

    Example:
        kdna verify half
    """
    from ...api.verify import verify as stage
    from ..report.verify import check_table

    arguments = images.arguments | run.arguments | trust.arguments
    with reporting(run.quiet) as progress:
        checks = stage(folder, **arguments, limit=limit, seed=seed, progress=progress)
    show_json(checks) if run.json else show(check_table(checks))
    if not all(check.ok for check in checks):
        tell("restore the folder from a copy, or convert again", run.quiet)
        raise typer.Exit(2)
