"""`kdna export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .console import show, show_json, tell
from .options import Folder, Force, Output, grouped

EXPORT_HELP = "File to write. Default: FOLDER-merged.safetensors, or FOLDER.onnx."
TO_HELP = "merged: the state dict of the original net as .safetensors. onnx: a graph for any ONNX runtime."


class Form(str, Enum):
    """What `kdna export` writes."""

    merged = "merged"
    onnx = "onnx"


@grouped
def export(
    folder: Folder,
    out: Output,
    to: Annotated[Form, typer.Option(metavar="FORM", help=TO_HELP)] = Form.merged,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=EXPORT_HELP)] = None,
    force: Force = False,
) -> None:
    """Write a converted net as a file that loads without kdna.

    Example:
        kdna export half --to onnx
    """
    write = _export_onnx if to is Form.onnx else _export_merged
    write(folder, output, out, force)


def _export_onnx(folder: str, output: Path | None, out: Output, force: bool) -> None:
    from ...network.folder import open_folder
    from ...stages.export.onnx import export_onnx
    from ..report.export import onnx_line

    exported = export_onnx(open_folder(folder), output or Path(f"{Path(folder)}.onnx"), force=force)
    show_json(exported) if out.json else show(onnx_line(exported))


def _export_merged(folder: str, output: Path | None, out: Output, force: bool) -> None:
    from ...network.folder import open_folder
    from ...stages.export.merged import export_merged
    from ..report.export import merged_line

    target = output or Path(f"{Path(folder)}-merged.safetensors")
    export_merged(open_folder(folder), target, force=force)
    written = target.stat().st_size
    show_json({"file": target, "bytes": written}) if out.json else show(merged_line(target, written))
    tell(f'python: model.load_state_dict(safetensors.torch.load_file("{target}"))', out.quiet)
