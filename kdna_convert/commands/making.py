"""`kdna analyze`, `plan`, `convert`, `finetune`: the verbs that lead from a net to a converted folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import output_path, progress_bar, show, show_json, tell, write_file
from .options import Calibration, Goal, Images, Run, Source, grouped

Metric = Literal["explained", "angles", "cka", "cosine"]
NEXT = """written to {folder}
next  kdna eval {folder} --data {data}       accuracy, and agreement with the original
      kdna finetune {folder} --data {data}   adapters only, the original teaches
      kdna export {folder} --to merged       weights that load into the untouched net
      kdna_convert.load("{folder}")          in Python"""
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@grouped
def analyze(
    source: Source,
    images: Images,
    calibration: Calibration,
    run: Run,
    metric: Annotated[Metric | None, typer.Option(help="How alike is measured. Default: the recipe's.")] = None,
) -> None:
    """Show every layer, which of them could share, and how alike they are."""
    from ..pipeline import analyze as stage
    from ..report.analysis import analysis_report

    with progress_bar(run.quiet) as progress:
        arguments = source.arguments | images.arguments | calibration.arguments | run.arguments
        analysis = stage(**arguments, metric=metric, progress=progress)
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
) -> None:
    """Choose the scheme and rank of every family under a budget: exact sizes, before any fitting."""
    from ..pipeline import plan as stage
    from ..report.plan import plan_report
    from ..specs import to_json

    target = output and output_path(output, force)
    with progress_bar(run.quiet) as progress:
        arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
        planned = stage(**arguments, progress=progress)
    if target:
        write_file(target, to_json(planned), force)
    show_json(planned) if run.json else show(plan_report(planned))


@grouped
def convert(
    source: Source,
    images: Images,
    calibration: Calibration,
    goal: Goal,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")] = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="Convert by this plan; none is made.")] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and print; fit nothing, write nothing.")] = False,
) -> None:
    """Convert a net and write it as a folder that `kdna_convert.load` reads."""
    from ..checkpoint import save
    from ..pipeline import convert as stage
    from ..report.conversion import conversion_report

    target = output_path(output, force)
    with progress_bar(run.quiet) as progress:
        arguments = source.arguments | images.arguments | calibration.arguments | goal.arguments | run.arguments
        conversion = stage(**arguments, plan=plan_file, progress=progress)
    save(conversion, target, force=force)
    show_json(conversion.report) if run.json else show(conversion_report(conversion))
    tell(NEXT.format(folder=target, data=images.data or "DATA"), run.quiet)


@grouped
def finetune(
    folder: Annotated[str, typer.Argument(help="Folder that `kdna convert` wrote.")],
    images: Images,
    run: Run,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 5,
    lr: Annotated[float, typer.Option(min=0.0, help="Learning rate, relative to the adapters' own size.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images' order.")] = 0,
    force: Force = False,
) -> None:
    """Train the adapters of a converted folder towards the original net's answers; labels are not needed."""
    from ..checkpoint import save
    from ..pipeline import finetune as stage
    from ..report.conversion import conversion_report

    target = output_path(output, force)
    with progress_bar(run.quiet) as progress:
        arguments = images.required | run.arguments
        conversion = stage(folder, **arguments, epochs=epochs, lr=lr, seed=seed, progress=progress)
    save(conversion, target, force=force)
    show_json(conversion.report) if run.json else show(conversion_report(conversion))
