"""`kdna bench`: the speed of a net in each of its forms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...core.plugin_names import RuntimeName
from .console import output_path, reporting, show, show_json, write_page
from .grouped import grouped
from .options import Force, HtmlFlag, NetFlags, RunFlags, TrustFlags


@grouped
def bench(
    ctx: typer.Context,
    net: NetFlags,
    run: RunFlags,
    trust: TrustFlags,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Batch size.")] = 1,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=3, help="Timed rounds. Each runs every net once, in turn.")
    ] = 30,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads. Default: those of torch.")
    ] = None,
    runtime: Annotated[
        RuntimeName, typer.Option(metavar="NAME", help="What runs the nets: torch, onnxruntime or openvino.")
    ] = "torch",
    html: HtmlFlag = None,
    force: Force = False,
) -> None:
    """Measure the speed of a net.

    For a converted folder: the original, converted, folded and factored net, run
    in turn.

    Example:
        kdna bench half --batch 32
    """
    target = html and output_path(html, force)
    from ...api.bench import benchmark as stage
    from ..report.bench import bench_table

    with reporting(run.quiet) as progress:
        arguments = net.arguments | run.arguments | trust.arguments
        how: dict[str, Any] = {"batch": batch, "rounds": rounds, "threads": threads, "runtime": runtime}
        rows = stage(arguments.pop("model"), **arguments, **how, progress=progress)
    show_json(rows) if run.json else show(bench_table(rows))
    if target:
        write_page(ctx, rows, target, run.quiet)
