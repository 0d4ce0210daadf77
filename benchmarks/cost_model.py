"""What `kdna plan --dry-run` expects beside what conversions took, by the rows of growth.py and real_size.py.

    python benchmarks/cost_model.py [DATA]

Expected and measured seconds and GB of each row, and the largest factor between them. The seconds are of the processor,
divided by the threads: other programs do not count. With DATA also the rows of real_size.py. The machine must be the
one that measured the rows. The seconds of each stage are printed for the constants of stages/evaluate/cost_model.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import growth
import real_size
from commands import Row, kdna, rows, table
from noise import noise_images

COLUMNS = ("conversion", "expected s", "measured s", "expected GB", "measured GB", "stages, expected", "measured")


def measured(data: Path | None, scratch: Path) -> Iterator[tuple[str, list[object], Row]]:
    """Each row that did not fail: its name, the arguments of `kdna plan`, and the row."""
    images = noise_images(scratch / "images", max(growth.AXES["images"]) + growth.HELDOUT, 64)
    for row in rows(growth.RESULTS):
        if "failed" not in row:
            size = growth.Size(*(row[key] for key in ("width", "depth", "side", "images")))
            split = [f"calibration.images={size.images}", f"calibration.heldout={growth.HELDOUT}"]
            yield f"{row['recipe']}, {size}", [size.model, "--recipe", row["recipe"], *_images(images, split)], row
    tasks = {} if data is None else {task.name: task for task in real_size.tasks(data)}
    for row in rows(real_size.RESULTS):
        if "failed" not in row and data is not None and row["task"] in tasks:
            task = tasks[row["task"]]
            source = data / ("imagenet/calibration" if task.images == "crops" else task.images)
            split = [f"calibration.{key}={row[key]}" for key in ("images", "heldout")]
            yield task.name, [*task.model, "--recipe", task.recipe, *_images(source, split)], row


def _images(source: Path, split: list[str]) -> list[object]:
    return ["--data", source, *(part for one in split for part in ("--set", one))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    given = parser.parse_args()
    lines: list[list[object]] = []
    factors = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, arguments, row in measured(given.data, Path(scratch)):
            cost, _ = kdna("plan", *arguments, "--dry-run")
            seconds, peak = row["cpu_seconds"] / row["threads"], cost["bytes"] / 1e9
            stages = {stage: round(value, 1) for stage, value in cost["stages"].items()}
            lines.append([name, round(cost["seconds"]), round(seconds), round(peak, 1), row["peak_gb"]])
            lines[-1] += [stages, row["stages"]]
            factors += [cost["seconds"] / seconds, peak / row["peak_gb"]]
    print(table(COLUMNS, lines))
    if factors:
        print(f"largest factor: {max(max(factor, 1 / factor) for factor in factors):.2f}")


if __name__ == "__main__":
    main()
