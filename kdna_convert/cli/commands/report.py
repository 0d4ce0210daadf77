"""`kdna report`: a converted folder as a page in HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import REPORT_PAGE, output_path, reporting, show_json, tell
from .grouped import grouped
from .options import Folder, Force, OutputFlags, TrustFlags


@grouped
def report(
    folder: Folder,
    out: OutputFlags,
    trust: TrustFlags,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="HTML file to write. Default: report.html in FOLDER."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="FILE", help="The original's weights, if they are not where they were.")
    ] = None,
    force: Force = False,
) -> None:
    """Write a page that shows what a converted folder holds.

    One HTML file that loads nothing. report.html in FOLDER is replaced; another
    file only with --force.

    Example:
        kdna report half
    """
    from ...api.report import report as stage

    target = Path(folder) / REPORT_PAGE if output is None else output_path(output, force)
    with reporting(out.quiet):
        page = stage(folder, **trust.arguments, checkpoint=checkpoint)
    written = page.save(target, force=True)
    if out.json:
        show_json({"file": str(written), "bytes": written.stat().st_size})
    tell(f"written to {written}", out.quiet)
