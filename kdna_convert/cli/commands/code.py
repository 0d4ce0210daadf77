"""`kdna code`: the tensors of a converted folder, coded to a file of a given size."""

from __future__ import annotations

from typing import Annotated

import typer

from ...core.plugin_names import CodecName
from .console import output_path, reporting, save_folder, show, show_json, tell_written
from .grouped import grouped
from .options import BYTES_HELP, ROUNDED_ON_NOISE, SIZE, Folder, Force, ImagesFlags, OutputFolder, RunFlags, TrustFlags

CODEC_HELP = "fp16, bf16, int8, int4 or entropy; see `kdna ls codecs`."


@grouped
def code(
    ctx: typer.Context,
    folder: Folder,
    images: ImagesFlags,
    run: RunFlags,
    trust: TrustFlags,
    codec: Annotated[CodecName, typer.Option(metavar="NAME", help=CODEC_HELP)] = "entropy",
    target_bytes: Annotated[str | None, typer.Option(metavar="SIZE", help=BYTES_HELP, callback=SIZE)] = None,
    output: OutputFolder = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the order of images.")] = 0,
    force: Force = False,
) -> None:
    """Store a converted net in fewer bytes.

    Example:
        kdna code half --data kdna:digits/train --target-bytes 1/10 -o half-coded
    """
    target = output_path(output, force)
    from ...api.code import code as stage
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.code import code_report

    require_free(target, force)
    arguments = images.arguments | run.arguments | trust.arguments
    notes = [ROUNDED_ON_NOISE] if codec == "entropy" and images.data is None else []
    with reporting(run.quiet, notes) as progress:
        conversion = stage(folder, **arguments, codec=codec, target_bytes=target_bytes, seed=seed, progress=progress)
    save_folder(conversion, target, ctx, force)
    show_json(to_plain(conversion.report)) if run.json else show(code_report(conversion))
    tell_written(conversion, target, run.quiet)
