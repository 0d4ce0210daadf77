"""Minutes and gigabytes of conversions of nets of real size, each by one command, beside the goals.

    python benchmarks/real_size.py DATA [--runs 1] [--only resnet18] [--images 512] [--again]

Every row is `kdna convert` in a process of its own, with the threads that the machine gives: wall seconds, CPU seconds,
peak memory, medians of --runs. Rows that benchmarks/results/real_size.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines import net_flags
from commands import CommandError, Row, append, kdna, machine, rows, stages, table
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "real_size.jsonl"
CROP, CROPS = 64, 64
LIMIT = 3600  # seconds of a command


@dataclass(frozen=True)
class Task:
    """A conversion: MODEL and its options, the recipe and its budget, the images, and the goals in minutes and GB."""

    net: str
    model: tuple[str, ...]
    recipe: str
    target: tuple[str, str]
    images: str
    minutes: float
    gigabytes: float | None

    @property
    def name(self) -> str:
        return f"{self.net}, {self.recipe} {self.target[1]}"


def tasks(data: Path) -> tuple[Task, ...]:
    resnet18, resnet56 = (tuple(net_flags(name, data)) for name in ("imagenet_resnet18", "cifar10_resnet56"))
    resnet50 = ("timm:resnet50(pretrained=False)", "--input-size", "224")
    checkpoint = data / "checkpoints" / "realesrgan_x4plus_anime.safetensors"
    upscaling = ("examples/realesrgan.py:x4plus_anime", "--checkpoint", str(checkpoint))
    half, quarter = ("--target-params", "50%"), ("--target-params", "25%")
    calibration = "imagenet/calibration"
    return (
        Task("ResNet-18", resnet18, "balanced", half, calibration, 4, 3),
        Task("ResNet-18", resnet18, "accurate", quarter, calibration, 8, 4),
        Task("ResNet-18", resnet18, "smallest", ("--target-bytes", "1/14"), calibration, 4, 3),
        Task("ResNet-50, random weights", resnet50, "balanced", half, calibration, 10, 6),
        Task("Real-ESRGAN", upscaling, "smallest", ("--target-bytes", "1/8"), "crops", 3, 4),
        Task("Real-ESRGAN", upscaling, "accurate", quarter, "crops", 8, 4),
        Task("ResNet-56", resnet56, "accurate", quarter, "cifar10/train", 1.5, None),
    )


def crops(source: Path, place: Path, count: int) -> Path:
    """The middle 64 x 64 pixels of so many images, as files."""
    place.mkdir()
    for file in [*sorted(source.rglob("*.JPEG")), *sorted(source.rglob("*.jpg"))][:count]:
        with Image.open(file) as image:
            left, top = ((side - CROP) // 2 for side in image.size)
            image.convert("RGB").crop((left, top, left + CROP, top + CROP)).save(place / f"{file.stem}.png")
    return place


def measure(task: Task, data: Path, images: int, heldout: int, scratch: Path) -> Row:
    """One run of the conversion."""
    if task.images == "crops":
        source = crops(data / "imagenet" / "calibration", scratch / "crops", CROPS)
        images, heldout = CROPS * 3 // 4, CROPS // 4
    else:
        source = data / task.images
    split = ["--set", f"calibration.images={images}", "--set", f"calibration.heldout={heldout}"]
    command = ["convert", *task.model, "--recipe", task.recipe, *task.target, "--data", source, *split]
    row: Row = {"task": task.name, "images": images, "heldout": heldout}
    try:
        report, cost = kdna(*command, "-o", scratch / "out", limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    measured = {"stages": stages(report), "divergence": report["divergence"], "notes": report["notes"]}
    return row | cost.row | measured | machine()


def summary(given: Sequence[Task], found: Sequence[Row]) -> str:
    """The table: medians beside the goals."""
    lines: list[list[object]] = []
    for task in given:
        own = [row for row in found if row["task"] == task.name]
        good = [row for row in own if "failed" not in row]
        goal = f"{task.minutes:g} min" + ("" if task.gigabytes is None else f", {task.gigabytes:g} GB")
        if not good:
            lines.append([task.name, own[-1]["failed"] if own else "not measured", "", "", goal])
            continue
        seconds, cpu, peak = (
            statistics.median(row[key] for row in good) for key in ("seconds", "cpu_seconds", "peak_gb")
        )
        lines.append([task.name, f"{seconds / 60:.1f} min", f"{cpu / 60:.1f} min", f"{peak:.1f} GB", goal])
    return table(("net, recipe", "time", "CPU time", "peak memory", "goal"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", default="", help="tasks whose names contain this text")
    parser.add_argument("--images", type=int, default=512, help="calibration images; 64 crops for Real-ESRGAN")
    parser.add_argument("--heldout", type=int, default=200)
    parser.add_argument("--again", action="store_true", help="forget the rows of the file")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.again:
        given.results.unlink(missing_ok=True)
    chosen = [task for task in tasks(given.data) if given.only.lower() in task.name.lower()]
    for task in chosen:
        done = [row for row in rows(given.results) if row["task"] == task.name and "failed" not in row]
        for _ in range(given.runs - len(done)):
            with tempfile.TemporaryDirectory() as scratch:
                row = measure(task, given.data, given.images, given.heldout, Path(scratch))
            print(append(given.results, row), file=sys.stderr, flush=True)
    print(summary(chosen, rows(given.results)))


if __name__ == "__main__":
    main()
