"""How many images a conversion needs: divergence against the number of images, and against their variety.

    python benchmarks/images.py DATA [--only resnet20] [--plot images.svg] [--again]

By `smallest`: ResNet-20 on CIFAR-10 at 1/14 of its bytes with 32 to 1,024 calibration images, and SqueezeNet on
ImageNet at 569 kB with images of ten classes, or of as many classes as there are images. Each row is `kdna convert` and
`kdna eval`, each in a process of its own; the commands go to stderr. The same 200 images are held out in each row, and
the figures are of the test images. Rows that benchmarks/results/images.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines import BASELINES, net_flags
from commands import CommandError, Row, append, kdna, machine, rows, table

RESULTS = Path(__file__).parent / "results" / "images.jsonl"
COUNTS = (32, 64, 128, 256, 512, 1024)
HELDOUT = 200
LIMIT = 3600  # seconds of a command
COLUMNS = ("net", "recipe", "calibrated on", "images", "top-1", "agreement", "KL", "CPU min")


@dataclass(frozen=True)
class Curve:
    """A conversion of the net of a baseline, with several numbers of images of one set."""

    net: str
    recipe: str
    target: tuple[str, str]
    images: str
    counts: tuple[int, ...]


CURVES = (
    Curve("cifar10_resnet20", "smallest", ("--target-bytes", "1/14"), "cifar10/train", COUNTS),
    Curve("imagenet_squeezenet1_1", "smallest", ("--target-bytes", "569kB"), "imagenet/calibration", (64, 256)),
    Curve("imagenet_squeezenet1_1", "smallest", ("--target-bytes", "569kB"), "imagenet/calibration_diverse", (64, 256)),
)


def name(curve: Curve, count: int) -> str:
    return f"{curve.net}, {curve.recipe}, {curve.images}, {count}"


def measure(curve: Curve, count: int, data: Path, out: Path) -> Row:
    """One row: the conversion's cost, and what `kdna eval` says."""
    row: Row = {"task": name(curve, count), "net": curve.net, "recipe": curve.recipe, "data": curve.images}
    row["images"] = count
    split = ["--set", f"calibration.images={count}", "--set", f"calibration.heldout={HELDOUT}"]
    seen = ["--data", data / BASELINES[curve.net].images]
    if curve.net.startswith("imagenet"):
        seen += ["--class-map", data / "imagenet" / "class_map.txt"]
    command = ["convert", *net_flags(curve.net, data), "--recipe", curve.recipe, *curve.target]
    try:
        _, cost = kdna(*command, "--data", data / curve.images, *split, "-o", out, limit=LIMIT)
        evaluation, _ = kdna("eval", out, "--trust-code", *seen, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    return row | cost.row | {key: evaluation[key] for key in ("bytes", "top1", "agreement", "kl")} | machine()


def summary(found: Sequence[Row]) -> str:
    """The table of the rows, the last of each conversion."""
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = []
    for row in last.values():
        percents = [f"{100 * row[key]:.2f}" for key in ("top1", "agreement")]
        own = [row["net"], row["recipe"], row["data"], row["images"]]
        lines.append([*own, *percents, f"{row['kl']:.4f}", f"{row['cpu_seconds'] / 60:.1f}"])
    return table(COLUMNS, lines, text=3)


def draw(found: Sequence[Row], picture: Path) -> None:
    """KL against the number of images, a line for each curve."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "kdna"
    figure, plot = plt.subplots(figsize=(6, 3.6), layout="constrained")
    last = {row["task"]: row for row in found if "failed" not in row}
    for curve in CURVES:
        known = [last[name(curve, count)] for count in curve.counts if name(curve, count) in last]
        label = f"{curve.net.partition('_')[2]}, {curve.recipe}, {curve.images.partition('/')[2]}"
        plot.plot([row["images"] for row in known], [row["kl"] for row in known], marker="o", label=label)
    plot.set_xscale("log", base=2)
    plot.set_yscale("log")
    plot.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
    plot.set_xlabel("calibration images")
    plot.set_ylabel("KL from the original, nats")
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small")
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'resnet20, smallest'")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what is measured, as .svg")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for curve in CURVES:
        for count in curve.counts:
            done = any(row["task"] == name(curve, count) and "failed" not in row for row in rows(given.results))
            if given.only not in name(curve, count) or (done and not given.again):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                row = append(given.results, measure(curve, count, given.data, Path(scratch) / "out"))
            print(row, file=sys.stderr, flush=True)
    print(summary(rows(given.results)))
    if given.plot:
        draw(rows(given.results), given.plot)


if __name__ == "__main__":
    main()
