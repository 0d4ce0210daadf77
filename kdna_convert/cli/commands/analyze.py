"""`kdna analyze`: which layers could share kernels."""

from __future__ import annotations

from typing import Annotated

import typer

from ...core.plugin_names import MetricName
from .console import following, output_path, reporting, show, show_json, tell, write_page
from .grouped import grouped
from .options import CalibrationFlags, Force, HtmlFlag, ImagesFlags, RunFlags, SourceFlags, TrustFlags

METRIC_HELP = "Similarity to cluster by: explained, angles, cka or cosine. Default: the recipe's."


@grouped
def analyze(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    run: RunFlags,
    trust: TrustFlags,
    metric: Annotated[MetricName | None, typer.Option(metavar="NAME", help=METRIC_HELP)] = None,
    html: HtmlFlag = None,
    force: Force = False,
) -> None:
    """Show which layers could share kernels, and how similar they are.

    Example:
        kdna analyze kdna:digits --data kdna:digits/train
    """
    from ...api.analyze import analyze as stage
    from ...api.analyze import analyze_material
    from ...api.nets import device_of_name
    from ...core.processes import process_group
    from ...core.specs import required
    from ..report.analyze import analysis_report

    target = output_path(html, force) if html else None
    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments | trust.arguments
    with process_group(device_of_name(run.device)) as leads:
        notes = calibration.notes(images) if leads else []
        with reporting(run.quiet or not leads, notes, source.hints) as progress:
            if target is None:
                analysis = stage(**arguments, metric=metric, progress=progress)
            else:
                material = analyze_material(**arguments, metric=metric, progress=progress)
                analysis = required(material.analysis)
                write_page(ctx, material, target, run.quiet)
    show_json(analysis) if run.json else show(analysis_report(analysis))
    tell(f"next  {following(ctx, 'plan', '--curve', without=['metric'])}", run.quiet)
