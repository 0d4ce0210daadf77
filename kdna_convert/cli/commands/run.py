"""`kdna run`: everything that a recipe says, in one command that can be stopped and called again."""

from __future__ import annotations

from typing import Annotated

import typer

from .code import NO_IMAGES, TARGET_HELP
from .console import COMMAND, reporting, show, show_json, tell, tell_remarks
from .options import Force, Images, OutputFolder, Run, Source, grouped

RECIPE_HELP = "Recipe file, or a name of `kdna recipe ls`."
DONE = "{folder} is what this command makes, and nothing was computed; --force makes it anew"
OTHER_IMAGES = "it was not measured on --eval-data: kdna eval {folder} --data {data}"
STOPPED = "kdna: stopped; what was done is in {work}: the same command goes on from there"


@grouped
def run(
    ctx: typer.Context,
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE_HELP)],
    source: Source,
    images: Images,
    run: Run,
    eval_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Images to measure on; none of --data's.", rich_help_panel="Data")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key.")
    ] = None,
    target_params: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the parameters to keep where it shares.")
    ] = None,
    target_bytes: Annotated[str | None, typer.Option(help=TARGET_HELP)] = None,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Do a recipe's whole job: convert, repair, fine-tune, code, measure. Stopped, the same command goes on."""
    if output is None:
        raise typer.BadParameter("say where to write", param_hint="-o")
    from ...api.run import run as stage
    from ...core.specs import required
    from ...inputs.recipe import load_recipe
    from ...network.folder.report import to_plain
    from ...network.folder.work import work_place
    from ..report.run import run_report

    arguments = source.arguments | images.arguments | run.arguments
    arguments |= {"recipe": load_recipe(recipe_name, overrides or []), "eval_data": eval_data, "output": output}
    arguments |= {"target_params": target_params, "target_bytes": target_bytes, "command": ctx.meta[COMMAND]}
    try:
        with reporting(run.quiet) as progress:
            conversion = stage(**arguments, force=force, progress=progress)
    except KeyboardInterrupt:
        work = work_place(output)
        tell(STOPPED.format(work=work) if work.exists() else "kdna: stopped before anything was done")
        raise
    report = conversion.report
    coded, done = report.code is not None and report.code.codec == "entropy", required(report.run)
    tell_remarks(report.notes, (report.finetune or report.calibration).skipped)
    tell_remarks([NO_IMAGES] if coded and images.data is None else [])
    show_json(to_plain(report)) if run.json else show(run_report(conversion))
    tell((DONE if done.was_there else "written to {folder}").format(folder=output), run.quiet)
    if done.was_there and eval_data not in (None, done.eval_data):
        tell_remarks([OTHER_IMAGES.format(folder=output, data=eval_data)])
