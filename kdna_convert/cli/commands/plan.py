"""`kdna plan`: the scheme and rank of every family for one budget, or the trade-off curve over all budgets."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from .console import following, output_path, picture_path, reporting, show, show_json, tell, write_page
from .goals import BoardFlags, GoalFlags, LatencyFlags
from .grouped import grouped
from .options import CalibrationFlags, Force, HtmlFlag, ImagesFlags, RunFlags, SourceFlags, TrustFlags

if TYPE_CHECKING:  # imports pydantic, which --help does not need
    from ...core.measurements import Curve, ExpectedCost
    from ...core.specs import Plan


# The options that say how large the plan is.
TARGETS = ("target_params", "target_bytes", "target_macs", "target_latency", "max_drop")
LIMITS = ("board", "arithmetic", "max_flash", "max_peak_memory", "max_latency")


@grouped
def plan(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    goal: GoalFlags,
    latency: LatencyFlags,
    board: BoardFlags,
    run: RunFlags,
    trust: TrustFlags,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the plan as JSON.")
    ] = None,
    force: Force = False,
    curve: Annotated[bool, typer.Option("--curve", help="Show a table of plans over all budgets.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --curve: also convert to each budget and measure it.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --curve: draw it as .svg, .png or .pdf.")
    ] = None,
    html: HtmlFlag = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print only the time and memory that a conversion will take.")
    ] = False,
) -> None:
    """Choose scheme and rank of each family for a budget. Sizes are exact; nothing is fitted.

    Example:
        kdna plan kdna:digits --data kdna:digits/train --target-params 0.5
    """
    if dry_run:
        show_cost(source, images, calibration, run, trust_code=trust.trust_code)
        return
    page = html and output_path(html, force)
    if curve:
        goal.refuse("--curve", besides="database")
        board.refuse("--curve")
        if output is not None:
            raise typer.BadParameter("--curve makes no single plan; choose a row first", param_hint="-o")
        if plot and not measure and not calibration.has_images(images):
            raise typer.BadParameter("requires --data: nothing is expected without images", param_hint="--plot")
        picture = plot and picture_path(plot, force)
        points = _show_curve(ctx, source, images, calibration, goal, run, trust, measure, picture)
        if page:
            write_page(ctx, points, page, run.quiet, repairs=expects_repair(images, calibration))
        return
    if measure or plot:
        raise typer.BadParameter("requires --curve", param_hint="--measure" if measure else "--plot")
    from ...core.atomic import write_text
    from ...core.specs import to_json

    target = output and output_path(output, force)
    with ExitStack() as own:
        if page and goal.database is None:  # the curve is solved from the errors of the plan
            scratch = own.enter_context(TemporaryDirectory())
            goal = replace(goal, database=str(Path(scratch) / "errors.json"))
        planned = make_plan(source, images, calibration, goal, latency, board, run, trust_code=trust.trust_code)
        if page:
            _write_plan_page(ctx, planned, page, source, images, calibration, goal, run, trust)
    if target:
        write_text(target, to_json(planned))
    show_plan(planned, run, expects_repair(images, calibration))
    by = ["--plan", str(target)] if target else []
    sizes = [*TARGETS, *LIMITS, "database"] if target else []
    tell(f"next  {following(ctx, 'convert', *by, '-o', 'small', without=sizes)}", run.quiet)


def _write_plan_page(
    ctx: typer.Context,
    planned: Plan,
    target: Path,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    goal: GoalFlags,
    run: RunFlags,
    trust: TrustFlags,
) -> None:
    """The plan as a page, with what is expected at other sizes."""
    from ...api.curve import curve as stage

    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments | trust.arguments
    points = stage(**arguments, database=goal.database)
    repairs = expects_repair(images, calibration)
    write_page(ctx, planned, target, run.quiet, curve=points, repairs=repairs)


def make_plan(
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    goal: GoalFlags,
    latency: LatencyFlags,
    board: BoardFlags,
    run: RunFlags,
    plan: Path | None = None,
    *,
    trust_code: bool = False,
) -> Plan:
    """The plan. If the database file already holds the errors, no model is loaded."""
    from ...stages.plan.files import replan, request_fingerprint

    question = source.arguments | images.arguments | calibration.arguments
    made_from = request_fingerprint(question["recipe"], source.model, images.data, question)
    by_size = {name: value for name, value in goal.budget.items() if name != "max_drop"}
    limited = any(value is not None for value in board.arguments.values())
    measured = goal.max_drop is not None or goal.target_latency is not None or limited
    known = None if measured else replan(goal.database, made_from, question["recipe"], **by_size)
    if known is not None:
        return known
    from ...api.plan import plan as stage

    with reporting(run.quiet, calibration.notes(images), source.hints) as progress:
        more = (
            goal.arguments
            | latency.arguments
            | board.arguments
            | run.arguments
            | {"plan": plan, "trust_code": trust_code}
        )
        return stage(**question, **more, progress=progress)


def cost_of(
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    run: RunFlags,
    *,
    trust_code: bool = False,
) -> ExpectedCost:
    """What the conversion is expected to take."""
    from ...api.expected_cost import expected_cost as stage

    with reporting(run.quiet) as progress:
        arguments = source.arguments | images.arguments | calibration.arguments | run.arguments
        return stage(**arguments, trust_code=trust_code, progress=progress)


def show_cost(
    source: SourceFlags, images: ImagesFlags, calibration: CalibrationFlags, run: RunFlags, *, trust_code: bool
) -> None:
    from ..report.plan import cost_line

    cost = cost_of(source, images, calibration, run, trust_code=trust_code)
    show_json(cost) if run.json else show(cost_line(cost))


def _show_curve(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    goal: GoalFlags,
    run: RunFlags,
    trust: TrustFlags,
    measure: bool,
    plot: Path | None,
) -> Curve:
    from ...api.curve import curve as stage
    from ..report.curve import chosen, curve_report, plot_curve

    arguments = source.arguments | images.arguments | calibration.arguments | run.arguments | trust.arguments
    with reporting(run.quiet, calibration.notes(images), source.hints) as progress:
        points = stage(**arguments, measure=measure, database=goal.database, metric=goal.metric, progress=progress)
    repaired = expects_repair(images, calibration)
    show_json(points) if run.json else show(curve_report(points, repaired))
    if plot:
        plot_curve(points, plot, repaired)
        tell(f"drawn to {plot}", run.quiet)
    size = f"{chosen(points, repaired).share:g}"
    tell(f"next  {following(ctx, 'convert', '--target-params', size, '-o', 'small')}", run.quiet)
    return points


def expects_repair(images: ImagesFlags, calibration: CalibrationFlags) -> bool | None:
    """Whether a conversion with these options is repaired; None without images, where nothing is expected."""
    return bool(calibration.recipe.repair) if calibration.has_images(images) else None


def show_plan(plan: Plan, run: RunFlags, repaired: bool | None) -> None:
    from ..report.plan import plan_report

    show_json(plan) if run.json else show(plan_report(plan, repaired))
