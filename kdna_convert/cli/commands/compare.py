"""`kdna compare`: kdna beside the tools one would use instead, on one's own net and images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import picture_path, reporting, show, show_json, tell, tell_remarks
from .options import Force, Images, Output, Source, Text, grouped, numbers

EVAL_HELP = "Images that every net is measured on; none of --data's. With class folders, top-1 too."
BYTES_HELP = "Sizes of the file, as 570kB,1/14."
PEERS_HELP = "Only these, as kdna,cp,nncodec. Default: all."
SAME = "--eval is --data: every tool may have seen what it is measured on; give other images"


@grouped
def compare(
    source: Source,
    images: Images,
    out: Output,
    eval_: Annotated[str | None, typer.Option("--eval", metavar="DATA", help=EVAL_HELP)] = None,
    at: Annotated[Text, typer.Option(help="Shares of the parameters, as 0.5,0.25.")] = None,
    bytes_: Annotated[Text, typer.Option("--bytes", help=BYTES_HELP)] = None,
    peers: Annotated[Text, typer.Option(help=PEERS_HELP)] = None,
    recipe_name: Annotated[
        Text, typer.Option("--recipe", "-r", help="kdna's recipe for shares of the parameters.")
    ] = None,
    bytes_recipe: Annotated[Text, typer.Option(help="kdna's recipe for sizes of the file.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many of --eval's images, drawn at random.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds that a tool may take for one net.")] = 1800,
    plot: Annotated[Path | None, typer.Option(help="Draw it here: .svg, .png or .pdf.")] = None,
    force: Force = False,
) -> None:
    """Set kdna beside other tools: the same net, the same images, the same parameters or bytes."""
    target = plot and picture_path(plot, force)
    if eval_ is None:
        raise typer.BadParameter("needed here: images that no tool calibrates on", param_hint="--eval")
    arguments = source.arguments | images.required
    from ...api.compare import compare as stage
    from ..report.compare import comparison_report
    from ..report.compare import plot as draw

    recipes = {"recipe": recipe_name, "bytes_recipe": bytes_recipe}
    asked: dict[str, Any] = {name: value for name, value in recipes.items() if value is not None}
    asked |= {"at": None if at is None else numbers(at), "bytes": _list(bytes_), "peers": _list(peers)}
    with reporting(out.quiet) as progress:
        found = stage(**arguments, **asked, eval=eval_, limit=limit, time_limit=time_limit, progress=progress)
    tell_remarks([SAME] if eval_ == images.data else [], found.skipped)
    show_json(found) if out.json else show(comparison_report(found))
    if target:
        draw(found, target)
        tell(f"drawn in {target}", out.quiet)


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.replace(",", " ").split() if part]
