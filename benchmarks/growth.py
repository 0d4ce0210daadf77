"""How the cost of a conversion grows with the net's width, depth and resolution and with the number of images.

    python benchmarks/growth.py [--only width] [--plot growth.svg] [--again]

One value changes at a time, from a residual net of eight 3x3 convolutions of 32 channels at 16 px and 128 calibration
images, with random weights and images of noise. Every row is `kdna convert` in a process of its own. Rows that
benchmarks/results/growth.jsonl has are not measured again. Start-up is part of every row: the first row is of the
smallest net that converts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from commands import CommandError, Row, append, kdna, machine, rows, stages, table
from noise import noise_images

RESULTS = Path(__file__).parent / "results" / "growth.jsonl"
NET = Path(__file__).parent / "plain_net.py"
BUDGETS = {"balanced": ("--target-params", "50%"), "smallest": ("--target-bytes", "1/14")}
AXES = {"width": (16, 32, 64, 128), "depth": (4, 8, 16, 32), "side": (8, 16, 32, 64), "images": (64, 128, 256, 512)}
UNITS = {"width": "channels", "depth": "convolutions", "side": "pixels a side", "images": "calibration images"}
HELDOUT = 64
LIMIT = 900  # seconds of a command


@dataclass(frozen=True)
class Size:
    """A net and its images."""

    width: int = 32
    depth: int = 8
    side: int = 16
    images: int = 128

    @property
    def model(self) -> str:
        return f"{os.path.relpath(NET)}:plain_net(width={self.width}, depth={self.depth}, side={self.side})"


START_UP = Size(8, 2, 8, 8)


def sizes(only: str) -> Iterator[Size]:
    """The smallest net, then each axis in turn; sizes that two axes share come twice."""
    yield START_UP
    for axis, values in AXES.items():
        if axis.startswith(only):
            yield from (replace(Size(), **{axis: value}) for value in values)


def measure(size: Size, recipe: str, images: Path, scratch: Path) -> Row:
    """One row."""
    split = ["--set", f"calibration.images={size.images}", "--set", f"calibration.heldout={HELDOUT}"]
    command = ["convert", size.model, "--recipe", recipe, *BUDGETS[recipe], "--data", images, *split]
    row = {"recipe": recipe, **asdict(size)}
    try:
        report, cost = kdna(*command, "-o", scratch, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    return row | cost.row | {"stages": stages(report)} | machine()


def of(found: Sequence[Row], recipe: str, size: Size) -> Row | None:
    """The last row of this recipe and size that did not fail."""
    wanted = {"recipe": recipe, **asdict(size)}
    same = [row for row in found if "failed" not in row and wanted.items() <= row.items()]
    return same[-1] if same else None


def summary(found: Sequence[Row]) -> str:
    """A line for each size: CPU seconds and peak memory by each recipe."""
    lines: list[list[object]] = [["start-up", "", *_cells(found, START_UP)]]
    for axis, values in AXES.items():
        lines += [[axis, value, *_cells(found, replace(Size(), **{axis: value}))] for value in values]
    return table(("grows", "to", *(f"{recipe}, {what}" for recipe in BUDGETS for what in ("CPU s", "GB"))), lines)


def _cells(found: Sequence[Row], size: Size) -> list[object]:
    known = [of(found, recipe, size) for recipe in BUDGETS]
    forms = {"cpu_seconds": "{:.0f}", "peak_gb": "{:.1f}"}
    return [None if row is None else form.format(row[key]) for row in known for key, form in forms.items()]


def draw(found: Sequence[Row], picture: Path) -> None:
    """CPU seconds above, peak memory below, an axis in each column."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "kdna"
    figure, plots = plt.subplots(2, len(AXES), figsize=(10, 4.6), sharey="row", layout="constrained")
    for column, (axis, values) in enumerate(AXES.items()):
        for recipe in BUDGETS:
            known = [(value, of(found, recipe, replace(Size(), **{axis: value}))) for value in values]
            points = [(value, row) for value, row in known if row is not None]
            for place, key in zip(plots[:, column], ("cpu_seconds", "peak_gb"), strict=True):
                label = recipe if column == 0 and key == "cpu_seconds" else None
                place.plot([value for value, _ in points], [row[key] for _, row in points], marker="o", label=label)
                place.set_xscale("log", base=2)
                place.set_xticks(values, map(str, values))
                place.grid(alpha=0.3)
        plots[0, column].set_yscale("log")
        plots[0, column].set_title(axis)
        plots[1, column].set_xlabel(UNITS[axis])
    plots[0, 0].set_ylabel("CPU seconds")
    plots[1, 0].set_ylabel("peak memory, GB")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"one axis: {', '.join(AXES)}")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what is measured, as .svg")
    parser.add_argument("--again", action="store_true", help="forget the rows of the file")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.again:
        given.results.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        images = noise_images(Path(scratch) / "images", max(AXES["images"]) + HELDOUT, max(AXES["side"]))
        for number, size in enumerate(sizes(given.only)):
            for recipe in BUDGETS:
                if of(rows(given.results), recipe, size) is None:
                    row = measure(size, recipe, images, Path(scratch) / f"{number}-{recipe}")
                    print(append(given.results, row), file=sys.stderr, flush=True)
    print(summary(rows(given.results)))
    if given.plot:
        draw(rows(given.results), given.plot)


if __name__ == "__main__":
    main()
