"""`kdna convert`: a net to a folder with shared kernels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .console import (
    following,
    output_path,
    reporting,
    require_one_process,
    resumable,
    save_folder,
    show,
    show_json,
    tell,
    tell_remarks,
    tell_written,
)
from .goals import BoardFlags, GoalFlags, LatencyFlags
from .grouped import grouped
from .options import CodingFlags, Force, ImagesFlags, OutputFolder, RunFlags, SourceFlags
from .plan import cost_of, expects_repair, make_plan, show_plan


@grouped
def convert(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CodingFlags,
    goal: GoalFlags,
    latency: LatencyFlags,
    board: BoardFlags,
    run: RunFlags,
    output: OutputFolder = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Use this plan from `kdna plan -o`.")] = None,
    progressive: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Fine-tune for N steps after each family.")
    ] = None,
    force: Force = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a stopped run with the same arguments.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and the time and memory to expect. Fit and write nothing."),
    ] = False,
) -> None:
    """Convert a net and write a folder that `kdna_convert.load` reads.

    Example:
        kdna convert kdna:digits -d kdna:digits/train --target-params 0.5 -o half
    """
    if progressive is not None:
        calibration = replace(calibration, overrides=[*(calibration.overrides or []), f"fit.progressive={progressive}"])
    if plan is not None:
        goal.refuse("--plan")
        board.refuse("--plan")
    if dry_run:
        from ..report.plan import cost_line

        require_one_process("--dry-run")
        tell(cost_line(cost_of(source, images, calibration, run)), run.quiet)
        if calibration.recipe.codec is not None:  # the codec meets the size of the file, and not the plan
            goal = replace(goal, target_bytes=None)
        planned = make_plan(source, images, calibration, goal, latency, board, run, plan)
        show_plan(planned, run, expects_repair(images, calibration))
        writes = ("-o", str(output or "small"))
        tell(f"next  {following(ctx, 'convert', *writes, without=['dry_run', 'resume'])}", run.quiet)
        return
    target = output_path(output, force)
    from ...api.convert import convert as stage
    from ...api.nets import device_of_name
    from ...api.repair import WORK_FILES
    from ...core.processes import process_group
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.convert import conversion_report

    require_free(target, force)
    arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
    arguments |= latency.arguments | board.arguments
    with process_group(device_of_name(run.device)) as leads, ExitStack() as own:
        work = own.enter_context(resumable(target, WORK_FILES, resume, run.quiet)) if leads else None
        notes, hints = calibration.notes(images), source.hints
        with reporting(run.quiet or not leads, notes if leads else [], hints) as progress:
            conversion = stage(**arguments, plan=plan, work=work, progress=progress)
        save_folder(conversion, target, ctx, force)
    skipped = conversion.report.calibration.skipped
    tell_remarks([note for note in conversion.report.notes if note not in (*notes, *hints)], skipped)
    show_json(to_plain(conversion.report)) if run.json else show(conversion_report(conversion))
    finetune = f"kdna finetune {quote(str(target))} --data {quote(images.data or 'DATA')} -o {quote(f'{target}-tuned')}"
    tell_written(conversion, target, run.quiet, finetune)
