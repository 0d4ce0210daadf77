"""`kdna analyze`, `plan`, `convert`: the verbs that lead from a net to a converted folder."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import (
    COMMAND,
    output_path,
    picture_path,
    progress_bar,
    require_one_process,
    show,
    show_json,
    tell,
    tell_remarks,
)
from .options import Calibration, Goal, Images, Run, Source, grouped

if TYPE_CHECKING:  # pydantic takes a tenth of a second, and --help needs none of it
    from ...core.specs import Plan

Metric = Literal["explained", "angles", "cka", "cosine"]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
NEXT = """written to {folder}
next  kdna eval {folder} --data {data}
      kdna finetune {folder} --data {data} -o {folder}-tuned
      kdna export {folder} --to merged
      python: kdna_convert.load("{folder}")"""


@grouped
def analyze(
    source: Source,
    images: Images,
    calibration: Calibration,
    run: Run,
    metric: Annotated[Metric | None, typer.Option(help="How alike is measured. Default: the recipe's.")] = None,
) -> None:
    """Show every layer, which of them could share, and how alike they are."""
    from ...api.job import device_of_name
    from ...api.pipeline import analyze as stage
    from ...core.processes import together
    from ..report.analysis import analysis_report

    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments
    with together(device_of_name(run.device)) as leads, progress_bar(run.quiet or not leads) as progress:
        analysis = stage(**arguments, metric=metric, progress=progress)
    _remark(images, calibration)
    show_json(analysis) if run.json else show(analysis_report(analysis))


@grouped
def plan(
    source: Source,
    images: Images,
    calibration: Calibration,
    goal: Goal,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here, as JSON.")] = None,
    force: Force = False,
    curve: Annotated[bool, typer.Option("--curve", help="A plan at every budget, as a table.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="With --curve: convert to each, and measure.")] = False,
    plot: Annotated[Path | None, typer.Option(help="With --curve: draw it here, .svg, .png or .pdf.")] = None,
) -> None:
    """Choose the scheme and rank of every family under a budget: exact sizes, before any fitting."""
    if curve:
        goal.refuse("--curve", besides="database")
        _show_curve(source, images, calibration, goal, run, measure, plot and picture_path(plot, force))
        return
    if measure or plot:
        raise typer.BadParameter("needs --curve", param_hint="--measure" if measure else "--plot")
    from ...core.specs import to_json
    from ...stages.plan.files import write_text

    target = output and output_path(output, force)
    planned = _planned(source, images, calibration, goal, run)
    if target:
        write_text(target, to_json(planned))
    _show_plan(planned, run)


@grouped
def convert(
    ctx: typer.Context,
    source: Source,
    images: Images,
    calibration: Calibration,
    goal: Goal,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")] = None,
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
        _show_plan(_planned(source, images, calibration, goal, run, plan), run)
        return
    target = output_path(output, force)
    from ...api.job import device_of_name
    from ...api.pipeline import convert as stage
    from ...api.repair import WORK_FILES
    from ...core.processes import together
    from ...network.folder import require_free, save
    from ...network.folder.work import work_folder
    from ..report.conversion import conversion_report

    require_free(target, force)
    arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
    with together(device_of_name(run.device)) as leads, ExitStack() as own:
        work = own.enter_context(work_folder(target, WORK_FILES, resume)) if leads else None
        with progress_bar(run.quiet or not leads) as progress:
            conversion = stage(**arguments, plan=plan, work=work, progress=progress)
        conversion.report["command"] = ctx.meta[COMMAND]
        save(conversion, target, force=force)
    tell_remarks(conversion.report["notes"], conversion.report["calibration"]["skipped"])
    show_json(conversion.report) if run.json else show(conversion_report(conversion))
    tell(NEXT.format(folder=target, data=images.data or "DATA"), run.quiet)


def _planned(
    source: Source, images: Images, calibration: Calibration, goal: Goal, run: Run, plan: Path | None = None
) -> Plan:
    """The plan; where a database already answers the question, at once and without loading torch."""
    from ...stages.plan.files import replan, request_mark

    question = source.arguments | images.arguments | calibration.arguments
    mark = request_mark(question["recipe"], source.model, images.data, question)
    by_size = {name: value for name, value in goal.budget.items() if name != "max_drop"}
    known = None if goal.max_drop is not None else replan(goal.database, mark, question["recipe"], **by_size)
    if known is not None:
        return known
    from ...api.pipeline import plan as stage

    with progress_bar(run.quiet) as progress:
        planned = stage(**question, **goal.arguments, **run.arguments, plan=plan, progress=progress)
    _remark(images, calibration)
    return planned


def _show_curve(
    source: Source, images: Images, calibration: Calibration, goal: Goal, run: Run, measure: bool, plot: Path | None
) -> None:
    from ...api.pipeline import curve as stage
    from ..report.curve import curve_report, plot_curve

    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments
    with progress_bar(run.quiet) as progress:
        found = stage(**arguments, measure=measure, database=goal.database, progress=progress)
    show_json(found) if run.json else show(curve_report(found))
    if plot:
        plot_curve(found, plot)
        tell(f"drawn in {plot}", run.quiet)


def _show_plan(plan: Plan, run: Run) -> None:
    from ..report.plan import plan_report

    show_json(plan) if run.json else show(plan_report(plan))


def _remark(images: Images, calibration: Calibration) -> None:
    """Fitting without images has a price, and it is said."""
    from ...api.job import DATA_FREE_NOTE

    if images.data is None or calibration.data_free:
        tell_remarks([DATA_FREE_NOTE])
