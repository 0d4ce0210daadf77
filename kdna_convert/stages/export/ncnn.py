"""`ncnn`: ncnn's two files, converted by pnnx, with weights of 16 bits."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import ModelError, cause
from .export import Export, ExportOptions, ExportSource
from .pt2 import traced
from .quiet import quiet

PARAM, BIN = "net.ncnn.param", "net.ncnn.bin"


class Ncnn(Export):
    """A folder with net.ncnn.param and net.ncnn.bin, for one image. The input is in0, the outputs are out0, out1 ..."""

    name: ClassVar[str] = "ncnn"
    suffix: ClassVar[str] = "-ncnn"
    folder: ClassVar[bool] = True
    fixed: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"normalize", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("pnnx", "ncnn")
    extra: ClassVar[str] = "ncnn"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        with tempfile.TemporaryDirectory() as folder:
            _convert(source, Path(folder))
            _require_known((Path(folder) / PARAM).read_text())
            for name in (PARAM, BIN):
                (place / name).write_bytes((Path(folder) / name).read_bytes())
        return "takes one image of this size; weights of 16 bits"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by ncnn on the CPU with arithmetic of 32 bits."""
        import ncnn

        net: Any = ncnn.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        if net.load_param(str(place / PARAM)) or net.load_model(str(place / BIN)):
            raise _not_run("it does not load what pnnx wrote")
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(images[0].numpy()).clone())
        try:
            blobs = [extractor.extract(f"out{number}")[1].numpy() for number in range(len(source.outputs))]
        except RuntimeError as error:  # of an output that was not computed
            raise _not_run(cause(error)) from error
        return {name: torch.from_numpy(blob.copy())[None] for name, blob in zip(source.outputs, blobs, strict=True)}

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance, for weights of 16 bits."""
        return 1e-2


def _not_run(why: str) -> ModelError:
    return ModelError(
        "KD312", f"ncnn does not run the net: {why}; export another form, or `kdna freeze` a routing first"
    )


def _convert(source: ExportSource, folder: Path) -> None:
    """Write what pnnx writes to a folder. Raises ModelError KD312 if it cannot convert the net."""
    import pnnx

    script, sizes = folder / "net.pt", ",".join(map(str, source.example.shape))
    try:
        with quiet(), torch.no_grad():
            torch.jit.trace(traced(source).module(), source.example).save(str(script))
        command = [pnnx.EXEC_PATH, str(script), f"inputshape=[{sizes}]f32", "fp16=1"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except Exception as error:  # the net is user code and may raise anything
        raise ModelError("KD312", f"pnnx cannot convert the net: {cause(error)}") from error
    if done.returncode or not (folder / PARAM).exists():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ModelError("KD312", f"pnnx cannot convert the net: {lines[-1]}")


def _require_known(param: str) -> None:
    """Raise ModelError KD312 for an operator that pnnx left as it was: ncnn's own have plain names."""
    rows = [line.split()[:2] for line in param.splitlines()[2:]]
    foreign = [f"{kind} ({name})" for kind, name in rows if not kind.isalnum()]
    if foreign:
        raise ModelError("KD312", f"ncnn has no {', '.join(foreign)}; export another form, or exclude the layer")
