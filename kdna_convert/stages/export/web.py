"""`web`: a folder with a page that runs the compact graph in the browser by onnxruntime-web."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ...core.errors import ModelError
from .compact import OnnxCompact
from .export import Export, ExportSource
from .onnx import run_graph

MODEL, SETTINGS, PAGE = "model.onnx.gz", "settings.json", "index.html"
RUNTIME = "onnxruntime-web"
# The module of onnxruntime-web that runs on the CPU, and the WebAssembly that it loads.
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


class Web(Export):
    """A page, its settings, the compact graph and the runtime, which is taken from `node_modules`.

    The graph and the runtime's WebAssembly are compressed by gzip. The page decompresses them, so that any server of
    static files will do.
    """

    name: ClassVar[str] = "web"
    suffix: ClassVar[str] = "-web"
    folder: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = OnnxCompact.needs
    extra: ClassVar[str] = OnnxCompact.extra

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write. Raises ModelError KD312 too for a net that takes no images, or without the runtime."""
        channels, *sides = source.conversion.data.input_size
        if len(sides) != 2 or channels not in (1, 3):
            size = tuple(source.conversion.data.input_size)
            raise ModelError("KD312", f"the page takes images; the net takes {size}; export it as onnx-compact")
        runtime = find_runtime(Path.cwd())
        draft = place / "model.onnx"
        OnnxCompact().write(source, draft)
        (place / MODEL).write_bytes(compressed(draft.read_bytes()))
        draft.unlink()
        shutil.copyfile(runtime / SCRIPT, place / SCRIPT)
        (place / f"{BINARY}.gz").write_bytes(compressed((runtime / BINARY).read_bytes()))
        (place / PAGE).write_bytes((files("kdna_convert") / "assets" / "web.html").read_bytes())
        (place / SETTINGS).write_text(json.dumps(settings(source), indent=2) + "\n", encoding="utf-8")
        return f"model of {(place / MODEL).stat().st_size:,} bytes; serve it: python -m http.server -d FOLDER"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by onnxruntime outside of a browser."""
        graph = place / "model.onnx"
        graph.write_bytes(gzip.decompress((place / MODEL).read_bytes()))
        try:
            return run_graph(source, graph, images)
        finally:
            graph.unlink()


def find_runtime(folder: Path) -> Path:
    """The files of onnxruntime-web in the `node_modules` of a folder or one above it, as node looks for packages.

    Raises ModelError KD312 if there is none.
    """
    for each in (folder, *folder.parents):
        found = each / "node_modules" / RUNTIME / "dist"
        if (found / SCRIPT).is_file() and (found / BINARY).is_file():
            return found
    raise ModelError("KD312", f"no node_modules/{RUNTIME} in {folder} or above: npm install {RUNTIME}")


def compressed(data: bytes) -> bytes:
    """The shortest of two gzip streams: with repeats at any distance, or with runs only, which suits small integers."""
    return min((_gzip(data, strategy) for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_RLE)), key=len)


def _gzip(data: bytes, strategy: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31, 9, strategy)
    return stream.compress(data) + stream.flush()


def settings(source: ExportSource) -> dict[str, Any]:
    """What the page needs to know of the net. A user may edit the file, for example to name the classes."""
    conversion, measured = source.conversion, source.conversion.report.divergence
    carried: Any = getattr(conversion.model, "pretrained_cfg", None) or {}
    data = conversion.data
    return {
        "title": conversion.plan.model.name,
        "input": source.options.input_names[0],
        "outputs": list(source.outputs),
        "task": measured.task if measured else "classify",
        "input_size": list(data.input_size),
        "mean": list(data.mean),
        "std": list(data.std),
        "crop_pct": data.crop_pct,
        "names": list(carried.get("label_names") or ()),
    }
