"""`kdna export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...core.plugin_names import ExportName
from .console import show, show_json, tell
from .grouped import grouped
from .options import Folder, Force, OutputFlags, TrustFlags

EXPORT_HELP = "File to write. Default: FOLDER-merged.safetensors, or FOLDER.onnx."
TO_HELP = "merged: the state dict of the original net as .safetensors. onnx: a graph for any ONNX runtime."


@grouped
def export(
    folder: Folder,
    out: OutputFlags,
    trust: TrustFlags,
    to: Annotated[ExportName, typer.Option(metavar="FORM", help=TO_HELP)] = "merged",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=EXPORT_HELP)] = None,
    force: Force = False,
) -> None:
    """Write a converted net as a file that loads without kdna.

    Example:
        kdna export half --to onnx
    """
    from ...api.export import export as stage
    from ...stages.export import EXPORTS
    from ..report.export import export_line

    target = output or Path(f"{Path(folder)}{EXPORTS[to].suffix}")
    exported = stage(folder, to=to, output=target, force=force, **trust.arguments)
    show_json(exported) if out.json else show(export_line(exported))
    if exported.usage:
        tell(f"python: {exported.usage}", out.quiet)
