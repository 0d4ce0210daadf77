"""`kdna profile`: the time of a net's layers in each form, by the runtime that will run it."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import reporting, show, show_json, tell
from .goals import LatencyFlags
from .grouped import grouped
from .option_values import words
from .options import NetFlags, OutputFlags


@grouped
def profile(
    net: NetFlags,
    latency: LatencyFlags,
    out: OutputFlags,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Batch size.")] = 1,
    schemes: Annotated[
        str, typer.Option(metavar="LIST", help="Schemes whose chains are timed; see `kdna ls schemes`.")
    ] = "cp,lowrank,tucker",
) -> None:
    """Measure the time of a net's layers: dense, in 8 bits, and as chains of smaller layers.

    Times are kept in --profile and measured once; --target-latency uses them.

    Example:
        kdna profile resnet18 --runtime openvino
    """
    from ...api.profile import profile as stage
    from ..report.profile import profile_table

    with reporting(out.quiet) as progress:
        arguments = net.arguments | {"runtime": latency.runtime, "threads": latency.threads, "profile": latency.profile}
        found = stage(arguments.pop("model"), **arguments, batch=batch, schemes=words(schemes), progress=progress)
    show_json(found) if out.json else show(profile_table(found))
    tell(f"times are in {found.file}", out.quiet)
