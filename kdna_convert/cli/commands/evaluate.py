"""`kdna eval`: accuracy, and agreement with the original net."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import reporting, show, show_json, tell_remarks
from .grouped import grouped
from .options import ImagesFlags, RunFlags, SourceFlags, TrustFlags


@grouped
def eval_(
    source: SourceFlags,
    images: ImagesFlags,
    run: RunFlags,
    trust: TrustFlags,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use N images only, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
) -> None:
    """Measure accuracy and, for a converted folder, agreement with the original net.

    Example:
        kdna eval half --data kdna:digits/test
    """
    arguments = source.arguments | images.required | run.arguments | trust.arguments
    from ...api.evaluate import evaluate as stage
    from ...api.nets import device_of_name
    from ...core.processes import process_group
    from ..report.evaluate import evaluation_table

    with (
        process_group(device_of_name(run.device)) as leads,
        reporting(run.quiet or not leads, hints=source.hints) as progress,
    ):
        evaluation = stage(arguments.pop("model"), **arguments, limit=limit, seed=seed, progress=progress)
    if not leads:
        return
    tell_remarks([], evaluation.skipped)
    show_json(evaluation) if run.json else show(evaluation_table(evaluation))
