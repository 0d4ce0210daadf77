"""`kdna export`: a converted net as a file that loads without kdna."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ...core.plugin_names import ExportChoice
from .console import show, show_json, tell
from .grouped import grouped
from .option_values import words
from .options import DATA_HELP, Folder, Force, OutputFlags, TrustFlags

EXPORT_HELP = "File or folder to write. Default: FOLDER and the form's ending, such as FOLDER.onnx."
TO_HELP = (
    "merged: the state dict of the original net as .safetensors. timm: a folder that timm loads. "
    "onnx: a graph for any ONNX runtime. onnx-compact: of the folder's size; it computes its weights at load. "
    "onnx-int8: in 8 bits, calibrated on --data. openvino, openvino-int8: the same for OpenVINO. "
    "pt2: a program of torch.export. executorch, litert, ncnn, coreml: for phones and boards. "
    "web: a folder with a page that runs the net in the browser. fastest: of the forms for onnxruntime and OpenVINO, "
    "the fastest on this machine, measured on --data."
)
FORM = "Form"


@dataclass(frozen=True)
class FormFlags:
    """What is asked of the form. Without a value: the form's own."""

    opset: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Version of ONNX's operators.", rich_help_panel=FORM),
    ] = None
    dynamic: Annotated[
        str,
        typer.Option(metavar="AXES", help="Axes of the input with any size: batch,height,width.", rich_help_panel=FORM),
    ] = "batch"
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Compute in 16 bits; inputs and outputs keep 32.", rich_help_panel=FORM),
    ] = False
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Take images in [0, 1] and normalize them inside.", rich_help_panel=FORM),
    ] = False
    input_names: Annotated[str, typer.Option(metavar="NAME", help="Name of the input.", rich_help_panel=FORM)] = (
        "images"
    )

    factored: Annotated[
        bool | None,
        typer.Option(
            "--factored/--folded",
            help="Run converted layers as chains of smaller layers. Default: if planned with --target-latency.",
            rich_help_panel=FORM,
        ),
    ] = None

    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0,
            max=1.0,
            help="Of fastest: the least agreement with torch. Default: 0.95.",
            rich_help_panel=FORM,
        ),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "opset": self.opset,
            "dynamic": words(self.dynamic),
            "fp16": self.fp16,
            "normalize": self.normalize,
            "input_names": words(self.input_names),
            "factored": self.factored,
            "min_agreement": self.min_agreement,
        }


@grouped
def export(
    folder: Folder,
    out: OutputFlags,
    trust: TrustFlags,
    form: FormFlags,
    to: Annotated[ExportChoice, typer.Option(metavar="FORM", help=TO_HELP)] = "merged",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="PATH", help=EXPORT_HELP)] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="DATA", help=DATA_HELP)] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Use N images only, drawn by --seed.")] = 100,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
    force: Force = False,
) -> None:
    """Write a converted net as a file that loads without kdna, and check that it returns what torch returns.

    The check runs on noise, and on images of --data. FILE.json records it.

    Example:
        kdna export half --to onnx
    """
    from ...api.export import default_place
    from ...api.export import export as stage
    from ...stages.export.fastest import Fastest
    from ..report.export import export_lines, fastest_table

    target = output or default_place(folder, to)
    wanted: dict[str, Any] = {"to": to, "output": target, "data": data, "limit": limit, "seed": seed, "force": force}
    exported = stage(folder, **wanted, **form.arguments, **trust.arguments)
    if out.json:
        show_json(exported)
    elif isinstance(exported, Fastest):
        show(fastest_table(exported))
    else:
        for line in export_lines(exported):
            show(line)
    if exported.usage:
        tell(f"python: {exported.usage}", out.quiet)
