"""`kdna convert`: a net made a folder of shared kernels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .console import output_path, reporting, require_one_process, save_folder, show, show_json, tell, tell_remarks
from .options import Calibration, Force, Goal, Images, OutputFolder, Run, Source, grouped
from .plan import make_plan, show_plan

NEXT = """written to {folder}
next  kdna eval {folder} --data {data}
      kdna finetune {folder} --data {data} -o {folder}-tuned
      kdna export {folder} --to merged
      python: kdna_convert.load("{folder}")"""


@grouped
def convert(
    ctx: typer.Context,
    source: Source,
    images: Images,
    calibration: Calibration,
    goal: Goal,
    run: Run,
    output: OutputFolder = None,
    plan: Annotated[Path | None, typer.Option(help="Convert by this plan; none is made.")] = None,
    progressive: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N steps of fine-tuning after each family.")
    ] = None,
    force: Force = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what a stopped run left behind.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and print; fit nothing, write nothing.")] = False,
) -> None:
    """Convert a net and write it as a folder that `kdna_convert.load` reads."""
    if progressive is not None:
        calibration = replace(calibration, overrides=[*(calibration.overrides or []), f"fit.progressive={progressive}"])
    if plan is not None:
        goal.refuse("--plan")
    if dry_run:
        require_one_process("--dry-run")
        show_plan(make_plan(source, images, calibration, goal, run, plan), run)
        return
    target = output_path(output, force)
    from ...api.job import device_of_name
    from ...api.pipeline import convert as stage
    from ...api.repair import WORK_FILES
    from ...core.processes import together
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ...network.folder.work import work_folder
    from ..report.convert import conversion_report

    require_free(target, force)
    arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
    with together(device_of_name(run.device)) as leads, ExitStack() as own:
        work = own.enter_context(work_folder(target, WORK_FILES, resume)) if leads else None
        with reporting(run.quiet or not leads) as progress:
            conversion = stage(**arguments, plan=plan, work=work, progress=progress)
        save_folder(conversion, target, ctx, force)
    tell_remarks(conversion.report.notes, conversion.report.calibration.skipped)
    show_json(to_plain(conversion.report)) if run.json else show(conversion_report(conversion))
    tell(NEXT.format(folder=target, data=images.data or "DATA"), run.quiet)
