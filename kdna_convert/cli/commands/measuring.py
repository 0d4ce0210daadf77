"""`kdna eval`, `bench`, `verify`, `export`: what a converted net is worth, whether it is whole, and how it ships."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .console import progress_bar, show, show_json, tell, tell_remarks
from .options import Images, Net, Output, Run, Source, grouped

FOLDER_HELP = "Folder that `kdna convert` wrote."
EXPORT_HELP = "File to write. Default: FOLDER-merged.safetensors, or FOLDER.onnx."
TO_HELP = "merged: the original's state dict, in one safetensors file. onnx: a graph that any runtime takes."
Folder = Annotated[str, typer.Argument(help=FOLDER_HELP)]


class Form(str, Enum):
    """What `kdna export` writes."""

    merged = "merged"
    onnx = "onnx"


@grouped
def eval_(
    source: Source,
    images: Images,
    run: Run,
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many images, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
) -> None:
    """Measure accuracy and, for a converted folder, agreement with the original net."""
    arguments = source.arguments | images.required | run.arguments
    from ...api.job import device_of_name
    from ...api.pipeline import evaluate as stage
    from ...core.processes import together
    from ..report.outcome import evaluation_table

    with together(device_of_name(run.device)) as leads, progress_bar(run.quiet or not leads) as progress:
        evaluation = stage(**arguments, limit=limit, seed=seed, progress=progress)
    if not leads:
        return
    tell_remarks([], evaluation.skipped)
    show_json(evaluation) if run.json else show(evaluation_table(evaluation))


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

    with progress_bar(run.quiet) as progress:
        arguments = net.arguments | run.arguments
        rows = stage(**arguments, batch=batch, rounds=rounds, threads=threads, progress=progress)
    show_json(rows) if run.json else show(bench_table(rows))


@grouped
def verify(folder: Folder, out: Output) -> None:
    """Check every claim a folder makes about itself; a failed check is exit code 2."""
    from ...network.folder import verify as stage
    from ..report.outcome import check_table

    checks = stage(folder)
    show_json(checks) if out.json else show(check_table(checks))
    if not all(check.ok for check in checks):
        tell("restore the folder, or convert again", out.quiet)
        raise typer.Exit(2)


@grouped
def export(
    folder: Folder,
    out: Output,
    to: Annotated[Form, typer.Option(help=TO_HELP)] = Form.merged,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=EXPORT_HELP)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a converted net in a form that needs no kdna."""
    from ...network.folder import export_merged, open_folder
    from ..report.figures import size

    if to is Form.onnx:
        from ...stages.export.onnx import export_onnx

        exported = export_onnx(open_folder(folder), output or Path(f"{Path(folder)}.onnx"), force=force)
        answers = f"onnxruntime's answers are within {exported.difference:.0e} of torch's"
        said = f"{exported.file}: {size(exported.bytes)}, takes any batch; {answers}"
        show_json(exported) if out.json else show(said)
        return
    target = output or Path(f"{Path(folder)}-{to.value}.safetensors")
    export_merged(open_folder(folder), target, force=force)
    written = target.stat().st_size
    shown = f"{target}: {size(written)}, loads into the untouched net"
    show_json({"file": target, "bytes": written}) if out.json else show(shown)
    tell(f'python: model.load_state_dict(safetensors.torch.load_file("{target}"))', out.quiet)
