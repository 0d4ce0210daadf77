"""What conversion costs the detector and the segmentation net of examples/shapes.py, and the denoiser.

    python benchmarks/dense_tasks.py SHAPES NETS PHOTOS [--only segmenter] [--again]

SHAPES is what `examples/shapes.py draw` wrote; NETS has segmenter.safetensors, detector.safetensors and
denoiser.safetensors, as the examples train them; PHOTOS are photographs that trained none of them. Each row is
`kdna convert` and `kdna eval`, each in a process of its own; the commands go to stderr. Rows that
benchmarks/results/dense_tasks.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import CommandError, Row, append, kdna, machine, rows, stages, table

RESULTS = Path(__file__).parent / "results" / "dense_tasks.jsonl"
LIMIT = 3600  # seconds of a command
TARGETS = ("", "smallest bytes 1/8", "smallest bytes 1/14", "balanced params 50%")
COLUMNS = ("net", "recipe", "bytes", "with labels", "against the original", "CPU minutes", "GB")


@dataclass(frozen=True)
class Net:
    """A net of the examples, the images that calibrate it, and those with labels that judge it."""

    name: str
    model: str
    images: str
    labeled: str
    flags: tuple[str, ...] = ()


def nets(shapes: Path, photos: Path) -> tuple[Net, ...]:
    test = shapes / "test"
    return (
        Net("segmenter", "shapes.py:segmenter", f"{shapes}/train/images", f"{test}/images::{test}/masks"),
        Net("detector", "shapes.py:detector", f"{shapes}/train/images", f"{test}/images::{test}/instances.json"),
        Net(
            "denoiser",
            "denoiser.py:dncnn",
            f"{shapes}/train/images::noise25",
            f"{photos}::noise25",
            ("--task", "image"),
        ),
    )


def measure(net: Net, target: str, checkpoints: Path, out: Path) -> Row:
    """One row: the conversion's cost, and what `kdna eval` says."""
    row: Row = {"task": f"{net.name} {target}".strip(), "net": net.name, "recipe": target or "original"}
    model: list[object] = [f"examples/{net.model}", "--checkpoint", checkpoints / f"{net.name}.safetensors", *net.flags]
    try:
        if target:
            recipe, kind, size = target.split()
            command = ["convert", *model, "--data", net.images, "--recipe", recipe, f"--target-{kind}", size]
            report, cost = kdna(*command, "-o", out, limit=LIMIT)
            row |= cost.row | {"stages": stages(report), "heldout": report["divergence"]}
            model = [out, "--trust-code"]
        evaluation, _ = kdna("eval", *model, "--data", net.labeled, "--limit", 300, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    keys = ("params", "bytes", "macs", "agreement", "kl", "logit_error", "measures", "from_original")
    return row | {key: evaluation[key] for key in keys if key in evaluation} | machine()


def summary(found: Sequence[Row]) -> str:
    """The table of the rows, the last of each conversion."""
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = []
    for row in last.values():
        both = [_measures(row.get(key)) for key in ("measures", "from_original")]
        cost = [f"{row['cpu_seconds'] / 60:.1f}", row["peak_gb"]] if "cpu_seconds" in row else ["", ""]
        lines.append([row["net"], row["recipe"], f"{row['bytes']:,}", *both, *cost])
    return table(COLUMNS, lines, text=2)


def _measures(found: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in (found or {}).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("shapes", "nets", "photos"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'detector smallest'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for net in nets(given.shapes, given.photos):
        for target in TARGETS:
            name = f"{net.name} {target}".strip()
            done = any(row["task"] == name and "failed" not in row for row in rows(given.results))
            if given.only not in name or (done and not given.again):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                row = append(given.results, measure(net, target, given.nets, Path(scratch) / "out"))
            print(row, file=sys.stderr, flush=True)
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
