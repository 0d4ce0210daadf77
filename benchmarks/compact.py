"""Bytes and speed of `--to onnx-compact` beside the folder and `--to onnx`, for converted folders.

    python benchmarks/compact.py FOLDER ...

Exports the graphs and prints a row for each folder: the bytes of model.safetensors, of the compact graph as it is and
compressed, of the compact graph with `--fp16`, and of the ordinary graph; the CPU time that onnxruntime takes to load
each graph and to run one image, on one thread. The graphs run in turn; a time is the median of `--repeat` runs. Every
folder appends one line to benchmarks/results/compact.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from commands import Row, table

import kdna_convert as kdna

RESULTS = Path(__file__).parent / "results" / "compact.jsonl"
# (form, whether with --fp16)
FORMS = (("onnx", False), ("onnx-compact", False), ("onnx-compact", True))


def row(folder: Path, work: Path, repeat: int, trust_code: bool) -> dict[str, Any]:
    """The measured row of a folder."""
    import onnxruntime

    sessions, loads, files, differences = [], [], [], []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for form, half in FORMS:
        path = work / f"{form}{half}.onnx"
        exported = kdna.export(folder, to=form, output=path, fp16=half, trust_code=trust_code)  # type: ignore[arg-type]
        files.append(path)
        differences.append(exported.difference)
        start = time.process_time()
        sessions.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        loads.append(time.process_time() - start)
    image = {sessions[0].get_inputs()[0].name: np.random.default_rng(0).normal(size=shape(sessions[0])).astype("f4")}
    times: list[list[float]] = [[] for _ in FORMS]
    for turn in range(repeat):
        for place in range(len(FORMS))[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            sessions[place].run(None, image)
            times[place].append(time.process_time() - start)
    medians = [1000 * statistics.median(each) for each in times]
    data = files[1].read_bytes()
    stored = (folder / "model.safetensors").stat().st_size
    sizes = {"stored": stored, "compact": len(data), "gzip": len(gzip.compress(data, 9)), "brotli": brotli(data)}
    rounded = files[2].read_bytes()
    sizes |= {"half": len(rounded), "half_gzip": len(gzip.compress(rounded, 9))}
    return {
        "folder": folder.name,
        **sizes,
        "onnx": files[0].stat().st_size,
        "compact_share": round(sizes["compact"] / stored, 3),
        "gzip_share": round(sizes["gzip"] / stored, 3),
        "half_share": round(len(rounded) / stored, 3),
        "load_seconds": [round(each, 3) for each in loads],
        "milliseconds": [round(each, 2) for each in medians],
        "time_share": round(medians[1] / medians[0], 3),
        "difference": differences[1],
        "half_difference": differences[2],
        "onnxruntime": onnxruntime.__version__,
    }


def shape(session: Any) -> list[int]:
    """The shape of one image."""
    return [side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape]


def brotli(data: bytes) -> int | None:
    """The bytes after brotli, None where the package is not installed."""
    try:
        import brotli as library
    except ImportError:
        return None
    return len(library.compress(data, quality=11, lgwin=24))


def summary(found: Sequence[Row]) -> str:
    """The rows, the last of each folder: bytes of the graph relative to the folder's file, CPU seconds, and time."""
    lines = []
    for row in {row["folder"]: row for row in found}.values():
        shares = [row[key] and f"{row[key] / row['stored']:.2f}" for key in ("compact", "gzip", "brotli")]
        loads = ", ".join(f"{seconds:.2f}" for seconds in row["load_seconds"][:2])
        half = f"{row['half_share']:.2f}" if "half_share" in row else ""
        lines.append([row["folder"], f"{row['stored']:,}", *shares, half, loads, f"{row['time_share']:.2f}"])
    columns = ["folder", "its bytes", "`.onnx`", "`gzip -9`", "brotli", "`--fp16`", "load, s", "time"]
    return table(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--repeat", type=int, default=60)
    parser.add_argument("--trust-code", action="store_true")
    args = parser.parse_args()
    for folder in args.folders:
        with tempfile.TemporaryDirectory() as work:
            measured = row(folder, Path(work), args.repeat, args.trust_code)
        print(json.dumps(measured), flush=True)
        with RESULTS.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
