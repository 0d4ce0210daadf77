"""Nets of ImageNet converted to shares of their parameters and bytes: top-1, agreement, KL, time and memory.

    python benchmarks/imagenet.py DATA [--only mobilenetv2] [--again]

Each row is `kdna convert` and `kdna eval`, each in a process of its own; the commands go to stderr. The calibration
sets are DATA/imagenet/calibration (1,000 images of ten classes) and calibration_diverse (492 images of 492 classes). A
net's own row comes first and must score its baseline. Rows that benchmarks/results/imagenet.jsonl has are not measured
again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines import BASELINES, fault, net_flags
from commands import CommandError, Row, append, kdna, machine, rows, stages, table

RESULTS = Path(__file__).parent / "results" / "imagenet.jsonl"
SETS = {"ten classes": ("calibration",), "diverse": ("calibration_diverse",)}
SETS["both"] = (*SETS["ten classes"], *SETS["diverse"])
HELDOUT = 200
LIMIT = 7200  # seconds of a command
COLUMNS = (
    "net", "recipe", "target", "calibrated on", "params", "bytes", "top-1", "agreement", "KL", "CPU min", "GB",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A conversion of the net of a baseline; without a recipe, the net as it is."""

    net: str
    recipe: str = "original"
    target: str = ""
    calibration: str = ""

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.net, self.recipe, self.target, self.calibration) if part)


def tasks() -> tuple[Task, ...]:
    """The rows, the net as it is before its conversions."""
    v1, v2, squeezenet, resnet18 = (
        f"imagenet_{name}" for name in ("mobilenetv1_075", "mobilenetv2_100", "squeezenet1_1", "resnet18")
    )
    coded = ((v2, "bytes 1/8"), (v1, "bytes 1.41MB"), (squeezenet, "bytes 569kB"))
    mobile = [
        Task(net, recipe, f"params {share}", "both")
        for net in (v2, v1)
        for recipe in ("accurate", "balanced")
        for share in ("70%", "50%")
    ]
    shared = [
        Task(resnet18, recipe, f"params {share}", "diverse")
        for recipe in ("balanced", "accurate")
        for share in ("50%", "35%", "25%")
    ]
    small = [Task(resnet18, "smallest", f"bytes {share}", "diverse") for share in ("1/8", "1/14", "1/20", "1/30")]
    wanted = [*(Task(net, "smallest", target, "both") for net, target in coded), *mobile, *shared, *small]
    nets = {task.net: None for task in wanted}
    return tuple(task for net in nets for task in (Task(net), *(task for task in wanted if task.net == net)))


def linked(data: Path, calibration: str, place: Path) -> tuple[Path, int]:
    """The folder of a calibration set, one with links to both sets where there are two, and its number of images."""
    folders = [data / "imagenet" / name for name in SETS[calibration]]
    images = sum(1 for folder in folders for file in folder.rglob("*") if file.is_file())
    if len(folders) == 1:
        return folders[0], images
    place.mkdir()
    for folder in folders:
        (place / folder.name).symlink_to(folder.resolve())
    return place, images


def measure(task: Task, data: Path, scratch: Path) -> Row:
    """One row: the conversion's cost, and what `kdna eval` says."""
    row: Row = {"task": task.name, "net": task.net, "recipe": task.recipe, "target": task.target}
    row["calibration"] = task.calibration
    net, cost = net_flags(task.net, data), {}
    images = ["--data", data / BASELINES[task.net].images, "--class-map", data / "imagenet" / "class_map.txt"]
    try:
        if task.target:
            source, count = linked(data, task.calibration, scratch / "images")
            split = ["--set", f"calibration.images={count - HELDOUT}", "--set", f"calibration.heldout={HELDOUT}"]
            kind, size = task.target.split()
            command = ["convert", *net, "--recipe", task.recipe, f"--target-{kind}", size, "--data", source, *split]
            report, taken = kdna(*command, "-o", scratch / "out", limit=LIMIT)
            cost = taken.row | {"stages": stages(report), "heldout": report["divergence"]}
            net = [str(scratch / "out"), "--trust-code"]
        evaluation, _ = kdna("eval", *net, *images, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    measured = {key: evaluation[key] for key in ("params", "bytes", "macs", "top1", "agreement", "kl")}
    return row | cost | measured | machine()


def summary(found: Sequence[Row]) -> str:
    """The table of the rows, the last of each task."""
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = []
    for row in last.values():
        percents = [None if row[key] is None else f"{100 * row[key]:.1f}" for key in ("top1", "agreement")]
        kl = None if row["kl"] is None else f"{row['kl']:.3f}"
        cost = f"{row['cpu_seconds'] / 60:.1f}" if "cpu_seconds" in row else None
        about = [row["net"], row["recipe"], row["target"], row["calibration"]]
        lines.append([*about, f"{row['params']:,}", f"{row['bytes']:,}", *percents, kl, cost, row.get("peak_gb")])
    return table(COLUMNS, lines, text=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'resnet18, smallest'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    chosen = {task for task in tasks() if given.only.lower() in task.name}
    nets = {task.net for task in chosen}
    for task in tasks():
        if task not in chosen and (task.target or task.net not in nets):
            continue
        done = [row for row in rows(given.results) if row["task"] == task.name and "failed" not in row]
        if not done or given.again:
            with tempfile.TemporaryDirectory() as scratch:
                done = [append(given.results, measure(task, given.data, Path(scratch)))]
            print(done[0], file=sys.stderr, flush=True)
        if not task.target and (wrong := done[-1].get("failed") or fault(task.net, 100 * done[-1]["top1"])):
            raise SystemExit(wrong)
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
