"""What fine-tuning gains: converted folders of a sweep of zoo.yaml, fine-tuned, then measured on the test images.

    python benchmarks/finetune_gains.py SWEEP DATA [--only norms] [--again]

SWEEP is the folder of the sweep. Each row is `kdna finetune` for a number of steps, and `kdna eval` before and after,
each in a process of its own; the commands go to stderr. Rows that benchmarks/results/finetune_gains.jsonl has are not
measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import CommandError, Row, append, kdna, machine, rows, table

RESULTS = Path(__file__).parent / "results" / "finetune_gains.jsonl"
LIMIT = 4 * 3600  # seconds of a command
COLUMNS = (
    "recipe", "size", "trained", "MixUp", "steps", "CPU min", "top-1 before", "after", "agreement before", "after",
    "KL before", "after", "bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A job of zoo.yaml whose folder is fine-tuned, and how."""

    job: str
    train: str
    steps: int
    mixup: int = 1

    @property
    def name(self) -> str:
        return f"{self.job}, {self.train}, {self.steps} steps, mixup {self.mixup}"


TUNED = (
    Task("resnet56-smallest-bytes1-40", "norms", 750),
    Task("resnet56-smallest-bytes1-50", "norms", 250),
    Task("resnet56-smallest-bytes1-50", "codes", 900),
    Task("resnet56-accurate-params0.25", "adapters", 500),
    Task("resnet56-accurate-params0.25", "shared", 500),
    Task("resnet56-accurate-params0.25", "shared", 500, mixup=0),
    Task("resnet56-balanced-params0.2", "shared", 700),
    Task("resnet56-balanced-params0.2", "shared", 700, mixup=0),
    Task("resnet56-smallest-bytes1-50", "codes", 2400),
)


def measure(task: Task, sweep: Path, data: Path, out: Path) -> Row:
    """One row: what `kdna eval` says before and after, and the training's cost."""
    folder, images = sweep / "jobs" / task.job, data / "cifar10"
    row: Row = {"task": task.name, "job": task.job, "train": task.train, "steps": task.steps, "mixup": task.mixup}
    options = ["--train", task.train, "--steps", task.steps, "--mixup", task.mixup, "--precision", "bf16"]
    try:
        before, _ = kdna("eval", folder, "--data", images / "test", "--trust-code", limit=LIMIT)
        command = ["finetune", folder, "--data", images / "train", *options, "-o", out, "--trust-code"]
        report, cost = kdna(*command, limit=LIMIT)
        after, _ = kdna("eval", out, "--data", images / "test", "--trust-code", limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    keys = ("top1", "agreement", "kl", "bytes", "params")
    measured = {name: {key: found[key] for key in keys} for name, found in (("before", before), ("after", after))}
    return row | measured | {"heldout": report["divergence"]} | cost.row | machine()


def summary(found: Sequence[Row], coded: bool) -> str:
    """The table of the rows, the last of each task: those of coded folders, or the others."""
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = []
    for row in last.values():
        _, recipe, size = row["job"].split("-", 2)
        if (recipe == "smallest") is not coded:
            continue
        share = size.removeprefix("bytes").replace("-", "/") if coded else f"{100 * float(size[6:]):.0f} %"
        both = row["before"], row["after"]
        scores = [f"{100 * each['top1']:.2f}" for each in both] + [f"{100 * each['agreement']:.2f} %" for each in both]
        scores += [f"{each['kl']:.4f}" for each in both]
        minutes = f"{row['cpu_seconds'] / 60:.0f}"
        about = [f"`{recipe}`", share, f"`{row['train']}`", "yes" if row["mixup"] else "no"]
        lines.append([*about, f"{row['steps']:,}", minutes, *scores, f"{both[1]['bytes']:,}"])
    return table(COLUMNS, lines, text=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'shared, 500'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if missing := [task.job for task in TUNED if not (given.sweep / "jobs" / task.job).is_dir()]:
        raise SystemExit(f"{given.sweep} has no folder of {', '.join(dict.fromkeys(missing))}: run the sweep first")
    for task in TUNED:
        done = any(row["task"] == task.name and "failed" not in row for row in rows(given.results))
        if given.only not in task.name or (done and not given.again):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = append(given.results, measure(task, given.sweep, given.data, Path(scratch) / "out"))
        print(row, file=sys.stderr, flush=True)
    print(summary(rows(given.results), coded=True), summary(rows(given.results), coded=False), sep="\n\n")


if __name__ == "__main__":
    main()
