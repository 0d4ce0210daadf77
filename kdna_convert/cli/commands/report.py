"""`kdna report`: a converted folder as a page in HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import REPORT_PAGE, output_path, reporting, show_json, tell, tell_remarks
from .grouped import grouped
from .options import Folder, Force, ImagesFlags, OriginalFlags, RunFlags, TrustFlags


@grouped
def report(
    folder: Folder,
    images: ImagesFlags,
    original: OriginalFlags,
    run: RunFlags,
    trust: TrustFlags,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="HTML file to write. Default: report.html in FOLDER."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use N images only, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Show no images of DATA, only what the nets answer on them.")
    ] = False,
    force: Force = False,
) -> None:
    """Write a page that shows what a converted folder holds.

    One HTML file that loads nothing. report.html in FOLDER is replaced; another
    file only with --force.

    With --data it shows where the answers of the converted net and of the
    original differ. The page then contains some of these images.

    Example:
        kdna report half
    """
    from ...api.report import report as stage

    target = Path(folder) / REPORT_PAGE if output is None else output_path(output, force)
    given = images.arguments | original.arguments | run.arguments | trust.arguments | {"limit": limit, "seed": seed}
    with reporting(run.quiet) as progress:
        page = stage(folder, **given, pictures=not no_images, progress=progress)
    written = page.save(target, force=True)
    tell_remarks([] if page.missing is None else [f"parts were left out: {page.missing}"], page.skipped)
    if run.json:
        show_json({"file": str(written), "bytes": written.stat().st_size})
    tell(f"written to {written}", run.quiet)
