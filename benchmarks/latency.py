"""ResNet-18 planned for a latency: predicted and measured time, agreement, and the fastest export on top.

    python benchmarks/latency.py DATA [--runtime onnxruntime] [--threads 1] [--only 0.65]

Each row is `kdna convert --target-latency`, `kdna eval` and `kdna export --to fastest`, each in a process of its own;
the commands go to stderr. 292 images of DATA/imagenet/calibration_diverse calibrate, 200 are held out, and agreement is
of the 1,000 images of DATA/imagenet/eval. The first row is the net as it is. Nothing else should run on the machine.
Rows that benchmarks/results/latency.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from baselines import net_flags
from commands import CommandError, Row, append, kdna, machine, rows, table

RESULTS = Path(__file__).parent / "results" / "latency.jsonl"
NET = "imagenet_resnet18"
# A recipe with its share of the original's time; the first is the net as it is.
CONVERSIONS = (
    ("dense", None),
    *(("faster", share) for share in ("0.8", "0.65", "0.5")),
)
LIMIT = 7200  # seconds of a command
COLUMNS = ("runtime, threads", "target", "planned", "measured", "multiply-adds", "top-1", "agreement")


def measure(recipe: str, share: str | None, runtime: str, threads: int, data: Path, kept: Path) -> Row:
    """One row: predicted and measured time, what `kdna eval` says, and the forms that were exported.

    `kept` is a folder for what all rows share: the moments, the predicted errors and the times of layers.
    """
    row: Row = {"task": f"{recipe} {share}, {runtime}, {threads}", "recipe": recipe, "target": share}
    row |= {"runtime": runtime}
    diverse, out = data / "imagenet" / "calibration_diverse", kept / f"{recipe}-{share}"
    images = ["--data", data / "imagenet" / "eval", "--class-map", data / "imagenet" / "class_map.txt"]
    split = ["--set", "calibration.images=292", "--set", "calibration.heldout=200"]
    how: list[object] = ["--recipe", recipe, "--target-latency", share, "--runtime", runtime, "--threads", threads]
    how += ["--moments", kept / "moments.safetensors", "--database", kept / f"{recipe}.json"]
    how += ["--profile", kept / "times.jsonl"]  # times of today, not those of the user's cache
    try:
        wanted = ["--scheme", "dense"] if share is None else [*how, "--data", diverse, *split]
        report, cost = kdna("convert", *net_flags(NET, data), *wanted, "-o", out, limit=LIMIT)
        evaluation, _ = kdna("eval", out, "--trust-code", *images, limit=LIMIT)
        exported, _ = kdna(
            "export", out, "--trust-code", "--to", "fastest", "--data", diverse, "--limit", 256, limit=LIMIT
        )
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    plan = json.loads((out / "plan.json").read_text())
    measured = {key: evaluation[key] for key in ("params", "macs", "top1", "agreement", "kl")}
    measured["macs"] = plan["planned"]["macs"]
    fastest = {"form": exported["form"], "forms": exported["rows"]}
    return row | cost.row | {"latency": report.get("latency")} | measured | fastest | machine()


def summary(found: Sequence[Row]) -> str:
    """The conversions, the last row of each: planned and measured time, and accuracy."""
    lines = []
    for row in _last(found).values():
        if not row["latency"]:
            continue
        planned, measured, original = (row["latency"][key] for key in ("planned", "measured", "original"))
        times = [f"{row['target']} of {original:.1f} ms", f"{planned:.1f} ms"]
        times.append(f"{measured:.1f} ms ({100 * (measured / planned - 1):+.0f} %)")
        runtime = f"{row['runtime']}, {row['task'].rpartition(' ')[2]}"
        kept = [f"{row['macs'] / dense(found)['macs']:.2f}", f"{100 * row['top1']:.1f}"]
        lines.append([runtime, *times, *kept, f"{100 * row['agreement']:.1f} %"])
    return table(COLUMNS, lines)


def forms(found: Sequence[Row]) -> str:
    """The exports of the net as it is, which `kdna export --to fastest` times in turns; the chosen one in bold."""
    row, lines = dense(found), []
    for form in row["forms"]:
        name = f"**{form['name']}**" if form["name"] == row["form"] else form["name"]
        cells = [f"{form['ms']:.1f}", f"{form['ratio']:.2f}", f"{100 * form['agreement']:.1f} %"]
        lines.append([name, *cells, f"{form['bytes'] / 1e6:.1f} MB"])
    return table(("form", "ms", "speed-up", "agreement", "file"), lines)


def dense(found: Sequence[Row]) -> Row:
    """The row of the net as it is."""
    return next(row for row in _last(found).values() if row["recipe"] == "dense")


def _last(found: Sequence[Row]) -> dict[str, Row]:
    return {row["task"]: row for row in found if "failed" not in row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino", "torch"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'faster 0.65'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        measure_all(given, Path(kept))
    print(forms(rows(given.results)), summary(rows(given.results)), sep="\n\n")


def measure_all(given: argparse.Namespace, kept: Path) -> None:
    """The rows that are asked for and not known."""
    for recipe, share in CONVERSIONS:
        name = f"{recipe} {share}, {given.runtime}, {given.threads}"
        done = any(row["task"] == name and "failed" not in row for row in rows(given.results))
        if given.only not in name or (done and not given.again):
            continue
        row = measure(recipe, share, given.runtime, given.threads, given.data, kept)
        print(append(given.results, row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
