"""`kdna analyze`: which layers could share kernels."""

from __future__ import annotations

from shlex import join
from typing import Annotated

import typer

from ...core.plugin_names import MetricName
from .console import reporting, show, show_json, tell_remarks
from .options import CalibrationFlags, ImagesFlags, RunFlags, SourceFlags, TrustFlags, grouped

METRIC_HELP = "Similarity to group by: explained, angles, cka or cosine. Default: the recipe's."


@grouped
def analyze(
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    run: RunFlags,
    trust: TrustFlags,
    metric: Annotated[MetricName | None, typer.Option(metavar="NAME", help=METRIC_HELP)] = None,
) -> None:
    """Show which layers could share kernels, and how similar they are.

    Example:
        kdna analyze kdna:digits --data kdna:digits/train
    """
    from ...api.analyze import analyze as stage
    from ...api.nets import device_of_name
    from ...core.processes import process_group
    from ..report.analyze import analysis_report

    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments | trust.arguments
    with process_group(device_of_name(run.device)) as leads, reporting(run.quiet or not leads) as progress:
        analysis = stage(**arguments, metric=metric, progress=progress)
    tell_remarks(calibration.notes(images))
    given = [source.model, *(["--checkpoint", source.checkpoint] if source.checkpoint else [])]
    given += ["--data", images.data] if images.data else []
    plan = f"kdna plan {join(given)} --curve"
    show_json(analysis) if run.json else show(analysis_report(analysis, plan))
