"""`kdna build`: the nets of the KernelDNA paper, untrained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output_path, show, show_json, tell
from .grouped import grouped
from .options import Force, OutputFlags

NAME_HELP = "kerneldna-resnet18, kerneldna-resnet50, kerneldna-mobilenetv2 or kerneldna-mobilenetv2-050."
NEXT = """written to {file}
next  train it; python: from kdna_convert.api.layouts import {factory}
      kdna eval {model} --checkpoint TRAINED --data VALIDATION"""


@grouped
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAME_HELP)],
    out: OutputFlags,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write random initial weights as .safetensors."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the weights.")] = 0,
    force: Force = False,
) -> None:
    """Build a net of the KernelDNA paper to train from scratch, and show its size.

    Example:
        kdna build kerneldna-resnet18 -o fresh.safetensors
    """
    target = output and output_path(output, force)
    from ...api.build import build as stage
    from ...api.build import write_fresh
    from ..report.build import build_table

    built = stage(name)
    if target:
        write_fresh(name, target, seed)
    show_json(built) if out.json else show(build_table(built))
    if target:
        factory = built.model.rpartition(":")[2]
        tell(NEXT.format(file=target, model=built.model, factory=factory), out.quiet)
