"""`kdna code`: a converted folder's tensors by a codec, in a file of a given size."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .console import output_path, reporting, save_folder, show, show_json, tell, tell_remarks
from .options import Folder, Force, Images, OutputFolder, Run, grouped

CodecName = Literal["fp16", "bf16", "int8", "int4", "entropy"]
TARGET_HELP = "Size of the file, header included: 86kB, or a share of the original's: 1/20, 5%, 0.05."
NO_IMAGES = "no images: rounded on synthetic noise, layer by layer, which costs accuracy; pass --data"


@grouped
def code(
    ctx: typer.Context,
    folder: Folder,
    images: Images,
    run: Run,
    codec: Annotated[CodecName, typer.Option(help="How numbers become bytes; `kdna ls codecs` says more.")] = "entropy",
    target_bytes: Annotated[str | None, typer.Option(help=TARGET_HELP)] = None,
    output: OutputFolder = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images' order.")] = 0,
    force: Force = False,
) -> None:
    """Store a converted net in fewer bytes: after sharing, after fine-tuning, or without either."""
    target = output_path(output, force)
    from ...api.code import code as stage
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.code import code_report

    require_free(target, force)
    arguments = images.arguments | run.arguments
    with reporting(run.quiet) as progress:
        conversion = stage(folder, **arguments, codec=codec, target_bytes=target_bytes, seed=seed, progress=progress)
    save_folder(conversion, target, ctx, force)
    tell_remarks([NO_IMAGES] if codec == "entropy" and images.data is None else [])
    show_json(to_plain(conversion.report)) if run.json else show(code_report(conversion))
    tell(f"written to {target}", run.quiet)
