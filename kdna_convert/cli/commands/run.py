"""`kdna run`: all stages of a recipe in one command that can be stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...core.errors import KdnaError
from .completion import recipe_names
from .console import (
    COMMAND,
    REPORT_PAGE,
    copy_report,
    output_path,
    reporting,
    show,
    show_json,
    tell,
    tell_remarks,
    tell_written,
    write_report,
)
from .goals import BoardFlags, LatencyFlags, RecipeSizeFlags
from .grouped import grouped
from .option_values import Text
from .options import (
    DATABASE_HELP,
    METRIC_HELP,
    MOMENTS_HELP,
    RECIPE_HELP,
    SET_HELP,
    Force,
    HtmlFlag,
    ImagesFlags,
    OutputFolder,
    RunFlags,
    SourceFlags,
    image_notes,
)

if TYPE_CHECKING:  # imports torch, which --help does not need
    from ...network.folder import Conversion

DONE = "{folder} is up to date. Use --force to rebuild it."
OTHER_IMAGES = "{folder} was not measured on --eval-data. Measure it: kdna eval {folder} --data {data}"
STOPPED = "kdna: stopped. Finished stages are in {work}. Run the same command again to resume."
STOPPED_EARLY = "kdna: stopped before the first stage ended"


@grouped
def run(
    ctx: typer.Context,
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP, autocompletion=recipe_names)],
    source: SourceFlags,
    images: ImagesFlags,
    goal: RecipeSizeFlags,
    latency: LatencyFlags,
    board: BoardFlags,
    run: RunFlags,
    eval_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Images to measure on. Use other images than --data.", rich_help_panel="Data"
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="FUNCTION", help=METRIC_HELP, rich_help_panel="Data")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SET_HELP)] = None,
    moments: Annotated[Text, typer.Option(metavar="FILE", help=MOMENTS_HELP, rich_help_panel="Data")] = None,
    database: Annotated[Text, typer.Option(metavar="FILE", help=DATABASE_HELP, rich_help_panel="Data")] = None,
    output: OutputFolder = None,
    html: HtmlFlag = None,
    force: Force = False,
) -> None:
    """Run all stages of a recipe: convert, repair, fine-tune, code, measure.

    After an interruption, run the same command again to resume.

    Example:
        kdna run balanced kdna:digits --data kdna:digits/train -o digits-run
    """
    if output is None:
        raise typer.BadParameter("required: where to write", param_hint="-o")
    page = html and output_path(html, force)
    from ...api.run import run as stage
    from ...inputs.recipe import load_recipe
    from ...network.folder.work import work_place

    recipe = load_recipe(recipe_name, overrides or [])
    arguments = source.arguments | images.arguments | run.arguments
    arguments |= goal.arguments | latency.arguments | board.arguments
    arguments |= {"recipe": recipe, "eval_data": eval_data, "output": output, "metric": metric}
    arguments |= {"moments": moments, "database": database, "command": ctx.meta[COMMAND]}
    notes, hints = image_notes(recipe, images.data is not None), source.hints
    try:
        with reporting(run.quiet, notes, hints) as progress:
            conversion = stage(**arguments, force=force, progress=progress)
    except (KeyboardInterrupt, KdnaError) as stop:
        work, stopped = work_place(output), isinstance(stop, KeyboardInterrupt)
        if work.exists() or stopped:
            tell(STOPPED.format(work=work) if work.exists() else STOPPED_EARLY, run.quiet and not stopped)
        raise
    if not (output / REPORT_PAGE).exists():
        write_report(output, conversion)
    if page:
        copy_report(output, page, run.quiet)
    tell_remarks([note for note in conversion.report.notes if note not in (*notes, *hints)])
    _show_run(conversion, output, eval_data, run)


def _show_run(conversion: Conversion, output: Path, eval_data: str | None, run: RunFlags) -> None:
    from ...core.specs import required
    from ...network.folder.report import to_plain
    from ..report.export import exported_report
    from ..report.run import run_report

    report, done = conversion.report, required(conversion.report.run)
    tell_remarks([], (report.finetune or report.calibration).skipped)
    show_json(to_plain(report)) if run.json else show(run_report(conversion))
    if done.was_there:
        tell(DONE.format(folder=output), run.quiet)
    else:
        tell_written(conversion, output, run.quiet, measured=eval_data is not None)
    if done.exported is not None and not run.json:
        show(exported_report(Path(done.exported)))
    if done.was_there and eval_data not in (None, done.eval_data):
        tell_remarks([OTHER_IMAGES.format(folder=output, data=eval_data)])
