"""`kdna eval`: accuracy, and agreement with the original net."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import reporting, show, show_json, tell_remarks
from .grouped import grouped
from .options import METRIC_HELP, ImagesFlags, RunFlags, SourceFlags, TrustFlags


@grouped
def eval_(
    source: SourceFlags,
    images: ImagesFlags,
    run: RunFlags,
    trust: TrustFlags,
    metric: Annotated[str | None, typer.Option(metavar="FUNCTION", help=METRIC_HELP)] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Use N images only, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
) -> None:
    """Measure a net by its task and, for a converted folder, how far it is from the original.

    Example:
        kdna eval half --data kdna:digits/test
    """
    arguments = source.arguments | images.required | run.arguments | trust.arguments | {"metric": metric}
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
