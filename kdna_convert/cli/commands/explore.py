"""`kdna explore`: a local page to steer a plan by."""

from __future__ import annotations

import webbrowser
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import COMMAND, given_words, reporting, show_json, tell, tell_remarks
from .goals import LatencyFlags
from .grouped import grouped
from .options import CalibrationFlags, ImagesFlags, RunFlags, SourceFlags, TrustFlags

# What a recipe is made of, and what times the layers; the rest is for the calibration.
_RECIPE = {field.name for field in fields(CalibrationFlags)} - {"data_free", "moments"}
_LATENCY = {field.name for field in fields(LatencyFlags)}


@grouped
def explore(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    calibration: CalibrationFlags,
    latency: LatencyFlags,
    run: RunFlags,
    trust: TrustFlags,
    database: Annotated[
        str | None, typer.Option(metavar="FILE", help="Predicted errors: read if the file exists, else written.")
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Measure the layers by --runtime, for budgets of time.")] = False,
    port: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=65535, help="Port of the page. Default: a free one.", show_default=False),
    ] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the address; open no browser.")] = False,
) -> None:
    """Steer a plan on a local page: drag the budget, pin, exclude or force layers.

    The page is for this machine alone, and its address has a secret. It writes
    the plan or a recipe, or converts. A converted folder as MODEL begins with
    its original, recipe and plan. Ctrl-C ends it.

    Example:
        kdna explore kdna:digits --data kdna:digits/train
    """
    from ...explore.server import bound_socket, require_extra, serve

    require_extra()
    with bound_socket(port) as place:
        from ...api.explore import explore as stage
        from ...explore.session import SteeringSession
        from ...explore.writing_out import GivenOptions

        typed: Any = ctx.get_parameter_source("recipe_name")
        own = Path(source.model).is_dir() and typed.name != "COMMANDLINE"
        arguments = source.arguments | images.arguments | calibration.arguments | run.arguments | trust.arguments
        arguments |= {"recipe": None, "overrides": calibration.changes} if own else {}
        arguments |= latency.arguments | {"latency": time, "database": database}
        told = calibration.notes(images), source.hints
        with reporting(run.quiet, *told) as progress:
            exploration = stage(**arguments, progress=progress)
        tell_remarks([note for note in exploration.notes if note not in (*told[0], *told[1])])

        def ready(address: str) -> None:
            show_json({"address": address}) if run.json else typer.echo(address)
            tell("Ctrl-C ends it.", run.quiet)
            if not no_open:
                webbrowser.open(address)

        folder = ["--recipe", str(Path(source.model) / "recipe.yaml")] if own else []
        words = [tuple(given_words(ctx, names)) for names in (_RECIPE, _LATENCY, {"database"})]
        given = GivenOptions((*folder, *words[0]), *words[1:])
        serve(SteeringSession(exploration, ctx.meta[COMMAND], given), place, ready)
