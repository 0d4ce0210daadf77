"""CREPE (tiny) converted to shares of its bytes: the pitch of speech against the original's, time and memory.

    python benchmarks/pitch.py DATA --calibrate SOUNDS --evaluate OTHERS [--only smallest] [--again]

Each row is `kdna convert` and `kdna eval`, each in a process of its own; the commands go to stderr. SOUNDS and OTHERS
are folders of .wav files. 256 frames of SOUNDS calibrate, 96 others are held out; the figures are of 3,000 frames of
OTHERS. A frame is voiced if the original's largest output is at least 0.5. `same pitch` is the share of voiced frames
whose pitch is within 50 cents of the original's. int8 and int4 are one scale per channel, without calibration. Rows
that benchmarks/results/pitch.jsonl has are not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from commands import CommandError, Row, append, kdna, machine, rows, stages, table

RESULTS = Path(__file__).parent / "results" / "pitch.jsonl"
FRAMES, HELDOUT, MEASURED = 256, 96, 3000
LIMIT = 3600  # seconds of a command
ROWS = ("int8", "int4", "smallest 1/8", "smallest 1/14", "smallest 1/20", "smallest 1/30")
COLUMNS = ("recipe", "target", "bytes", "same pitch, %", "output error", "CPU min", "GB")


def measure(name: str, given: argparse.Namespace, out: Path) -> Row:
    """One row: the conversion's cost, and what `kdna eval` says."""
    recipe, _, target = name.partition(" ")
    checkpoint = given.data / "checkpoints" / "crepe_tiny.safetensors"
    how = ["--recipe", recipe, "--target-bytes", target] if target else ["--scheme", "dense", "--codec", recipe]
    split = ["--calibration-images", FRAMES, "--set", f"calibration.heldout={HELDOUT}"]
    row: Row = {"task": name, "recipe": recipe, "target": target}
    os.environ["CREPE"] = str(checkpoint)
    try:
        net = ["examples/crepe.py:tiny", "--checkpoint", checkpoint, "--task", "regress", "--data", given.calibrate]
        report, cost = kdna("convert", *net, *how, *split, "-o", out, limit=LIMIT)
        seen = ["--data", given.evaluate, "--limit", MEASURED, "--metric", "examples/crepe.py:same_pitch"]
        evaluation, _ = kdna("eval", out, "--trust-code", *seen, limit=LIMIT)
    except CommandError as error:
        return row | {"failed": str(error)} | machine()
    measured = {key: evaluation[key] for key in ("params", "bytes", "logit_error")} | evaluation["measures"]
    return row | cost.row | {"stages": stages(report), "heldout": report["divergence"]} | measured | machine()


def summary(found: Sequence[Row]) -> str:
    """The table of the rows, the last of each conversion."""
    last = {row["task"]: row for row in found if "failed" not in row}
    lines = []
    for row in last.values():
        cost = f"{row['cpu_seconds'] / 60:.1f}"
        measured = [f"{row['bytes']:,}", f"{row['metric']:.2f}", f"{row['logit_error']:.4f}"]
        lines.append([row["recipe"], row["target"], *measured, cost, row["peak_gb"]])
    return table(COLUMNS, lines, text=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--calibrate", type=Path, required=True, metavar="SOUNDS")
    parser.add_argument("--evaluate", type=Path, required=True, metavar="OTHERS", help="other speech")
    parser.add_argument("--only", default="", help="rows whose names contain this text, such as 'smallest 1/8'")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has; it keeps both")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for name in ROWS:
        done = any(row["task"] == name and "failed" not in row for row in rows(given.results))
        if given.only not in name or (done and not given.again):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = append(given.results, measure(name, given, Path(scratch) / "out"))
        print(row, file=sys.stderr, flush=True)
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
