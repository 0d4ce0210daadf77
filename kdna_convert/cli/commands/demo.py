"""`kdna demo`: the whole job on the bundled net and images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output_path, reporting, show, show_json
from .grouped import grouped
from .options import OutputFlags


@grouped
def demo(
    out: OutputFlags,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Keep the converted folder here.")
    ] = None,
) -> None:
    """Convert, fine-tune and measure the bundled net on the bundled images.

    Takes about a minute. Nothing is downloaded.

    Example:
        kdna demo -o half
    """
    target = output and output_path(output, force=False)
    from ...api.demo import run as stage
    from ..report.demo import demo_report

    with reporting(out.quiet) as progress:
        outcome = stage(target, progress=progress)
    show_json(outcome) if out.json else show(demo_report(outcome))
