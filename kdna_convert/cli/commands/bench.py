"""`kdna bench`: the time that a net takes, in each of its forms."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import reporting, show, show_json
from .options import Net, Run, grouped


@grouped
def bench(
    net: Net,
    run: Run,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds; each runs every net once, in turn.")] = 30,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's.")] = None,
) -> None:
    """Time a net; of a converted folder the original, converted, folded and factored net, in one interleaved run."""
    from ...api.pipeline import benchmark as stage
    from ..report.bench import bench_table

    with reporting(run.quiet) as progress:
        arguments = net.arguments | run.arguments
        rows = stage(**arguments, batch=batch, rounds=rounds, threads=threads, progress=progress)
    show_json(rows) if run.json else show(bench_table(rows))
