"""`kdna compare`: kdna and other compression tools on one net and one set of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .completion import recipe_names
from .console import output_path, picture_path, reporting, show, show_json, tell, tell_remarks, write_page
from .grouped import grouped
from .option_values import Text, require_form
from .options import METRIC_HELP, Force, HtmlFlag, ImagesFlags, OutputFlags, SourceFlags

EVAL_HELP = "Images to measure every net on; not those of --data. Class folders give top-1 too."
SIZES_HELP = "Sizes of the file: 570kB,1/14,5%."
PEERS_HELP = "Compare only these tools: kdna,cp,nncodec. Default: all."
SAME = "--eval and --data are the same images: every tool may have calibrated on them; give other images to --eval"

_recipe = partial(typer.Option, metavar="RECIPE", autocompletion=recipe_names)


@grouped
def compare(
    ctx: typer.Context,
    source: SourceFlags,
    images: ImagesFlags,
    out: OutputFlags,
    eval_: Annotated[str | None, typer.Option("--eval", metavar="DATA", help=EVAL_HELP)] = None,
    at: Annotated[Text, typer.Option(metavar="LIST", help="Shares of the parameters: 0.5,25%.")] = None,
    bytes_: Annotated[Text, typer.Option("--bytes", metavar="LIST", help=SIZES_HELP)] = None,
    peers: Annotated[Text, typer.Option(metavar="LIST", help=PEERS_HELP)] = None,
    recipe_name: Annotated[Text, _recipe("--recipe", "-r", help="Recipe of kdna for shares of the parameters.")] = None,
    bytes_recipe: Annotated[Text, _recipe(help="Recipe of kdna for sizes of the file.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="FUNCTION", help=METRIC_HELP)] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use N images of --eval only, drawn at random.")
    ] = None,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Time limit per tool and net.")] = 1800,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result as .svg, .png or .pdf.")] = None,
    html: HtmlFlag = None,
    force: Force = False,
) -> None:
    """Compare kdna with other tools at equal parameters or bytes.

    Example:
        kdna compare kdna:digits --data kdna:digits/train --eval kdna:digits/test
    """
    target, page = plot and picture_path(plot, force), html and output_path(html, force)
    if eval_ is None:
        raise typer.BadParameter("required: images that no tool calibrates on", param_hint="--eval")
    for share in _list(at) or ():
        require_form(share, "parse_share", flag="--at")
    for size in _list(bytes_) or ():
        require_form(size, "parse_target", 1, flag="--bytes")
    arguments = source.arguments | images.required
    from ...api.compare import compare as stage
    from ..report.compare import comparison_report
    from ..report.compare import plot as draw

    recipes = {"recipe": recipe_name, "bytes_recipe": bytes_recipe}
    options: dict[str, Any] = {name: value for name, value in recipes.items() if value is not None}
    options |= {"at": _list(at), "bytes": _list(bytes_), "peers": _list(peers), "metric": metric}
    with reporting(out.quiet, hints=source.hints) as progress:
        comparison = stage(**arguments, **options, eval=eval_, limit=limit, time_limit=time_limit, progress=progress)
    tell_remarks([SAME] if eval_ == images.data else [], comparison.skipped)
    show_json(comparison) if out.json else show(comparison_report(comparison))
    if target:
        draw(comparison, target)
        tell(f"drawn to {target}", out.quiet)
    if page:
        write_page(ctx, comparison, page, out.quiet)


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.replace(",", " ").split() if part]
