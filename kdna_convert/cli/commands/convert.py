"""`kdna convert`: a net to a folder with shared kernels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .console import (
    output_path,
    reporting,
    require_one_process,
    save_folder,
    show,
    show_json,
    tell_remarks,
    tell_written,
)
from .options import CalibrationFlags, Force, GoalFlags, ImagesFlags, OutputFolder, RunFlags, SourceFlags, grouped
from .plan import is_repaired, make_plan, show_plan


@grouped
def convert(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    goal: GoalFlags,
    run: RunFlags,
    output: OutputFolder = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Use this plan from `kdna plan -o`.")] = None,
    progressive: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Fine-tune for N steps after each family.")
    ] = None,
    force: Force = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a stopped run with the same arguments.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only. Fit and write nothing.")] = False,
) -> None:
    """Convert a net and write a folder that `kdna_convert.load` reads.

    Example:
        kdna convert kdna:digits -d kdna:digits/train --target-params 0.5 -o half
    """
    if progressive is not None:
        calibration = replace(calibration, overrides=[*(calibration.overrides or []), f"fit.progressive={progressive}"])
    if plan is not None:
        goal.refuse("--plan")
    if dry_run:
        require_one_process("--dry-run")
        show_plan(make_plan(source, images, calibration, goal, run, plan), run, is_repaired(images, calibration))
        return
    target = output_path(output, force)
    from ...api.convert import convert as stage
    from ...api.nets import device_of_name
    from ...api.repair import WORK_FILES
    from ...core.processes import process_group
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ...network.folder.work import work_folder
    from ..report.convert import conversion_report

    require_free(target, force)
    arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
    with process_group(device_of_name(run.device)) as leads, ExitStack() as own:
        work = own.enter_context(work_folder(target, WORK_FILES, resume)) if leads else None
        with reporting(run.quiet or not leads) as progress:
            conversion = stage(**arguments, plan=plan, work=work, progress=progress)
        save_folder(conversion, target, ctx, force)
    tell_remarks(conversion.report.notes, conversion.report.calibration.skipped)
    show_json(to_plain(conversion.report)) if run.json else show(conversion_report(conversion))
    finetune = f"kdna finetune {quote(str(target))} --data {quote(images.data or 'DATA')} -o {quote(f'{target}-tuned')}"
    tell_written(conversion, target, run.quiet, finetune)
