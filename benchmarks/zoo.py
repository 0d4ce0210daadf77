"""The results of benchmarks/zoo.yaml as data, from which tables.py makes tables.

    DATA=/path/to/data kdna sweep benchmarks/zoo.yaml -o zoo
    python benchmarks/zoo.py zoo                    # its rows to benchmarks/results/zoo.json, in place of older ones
    python benchmarks/zoo.py zoo --against zoo2     # how far a second run is from the first; exit code 1 beyond PLAY

A sweep of a part of the grid (`--only`) replaces the rows of that part. A row has the command that repeats it, in which
DATA stands for the folder of the data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import commands

from kdna_convert.inputs.grid_reading import load_grid

GRID = Path(__file__).parent / "zoo.yaml"
RESULTS = Path(__file__).parent / "results" / "zoo.json"
# A second run's top-1 may differ by so much, in points: so do conversions that round differently.
PLAY = 0.3
HEAD = (
    "net",
    "recipe",
    "budget",
    "parameters",
    "bytes",
    "top-1 of the original",
    "top-1, or PSNR",
    "agreement",
    "KL",
    "CPU min",
)


def rows_of(folder: Path, data: str = "") -> list[dict[str, Any]]:
    """The last row of each job of a sweep, in the order of the file, without the names of this machine."""
    lines = [json.loads(line) for line in (folder / "sweep.jsonl").read_text().splitlines() if line.strip()]
    last = {row["job"]: row for row in lines}
    found = []
    for row in last.values():
        command = row["command"].replace(str(folder), "zoo")
        command = command.replace(data, "DATA") if data else command
        found.append({**row, "command": command, "host": "", "predicted": _predicted(folder / "jobs" / row["job"])})
    return found


def _predicted(folder: Path) -> float | None:
    """The error that the plan of a converted folder predicts; None where it predicts none."""
    file = folder / "plan.json"
    errors = json.loads(file.read_text(encoding="utf-8")).get("predicted") if file.exists() else None
    return sum(errors.values()) if errors else None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The done rows as a table in Markdown."""
    lines = []
    for row in rows:
        if row["state"] != "done":
            continue
        original, net = row["original"], row["result"]
        own = net["measures"]
        kept = f"{net['params']:,} ({100 * net['params'] / original['params']:.0f} %)"
        size = f"{net['bytes']:,} (1/{original['bytes'] / net['bytes']:.1f})"
        scores = [_score(original["measures"]), _score(own)]
        scores += [f"{100 * own['agreement']:.2f} %", f"{own['kl']:.4f}"] if "kl" in own else ["", ""]
        spent = f"{row['cpu_seconds'] / 60:.1f}" if row["cpu_seconds"] else "-"
        cells = [row["net"], f"`{row['recipe']}`", row["budget"], kept, size, *scores, spent]
        lines.append(cells)
    return commands.table(HEAD, lines, text=3)


def _score(measures: Mapping[str, float]) -> str:
    """Top-1 in %, PSNR where there is none, or nothing."""
    if "top1" in measures:
        return f"{100 * measures['top1']:.2f}"
    return f"{measures['psnr']:.2f} dB" if "psnr" in measures else ""


def recorded() -> list[dict[str, Any]]:
    """The rows of benchmarks/results/zoo.json that are done."""
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return [row for row in found if row["state"] == "done"]


def replaced(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], jobs: Sequence[str]) -> list[dict[str, Any]]:
    """The newest row of each job, in the order of the jobs; a failed one takes no done one's place."""
    found = {row["job"]: row for row in old}
    for row in new:
        if row["state"] == "done" or found.get(row["job"], row)["state"] != "done":
            found[row["job"]] = row
    return [found[job] for job in jobs if job in found]


def compared(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """Top-1 and bytes of two runs beside each other, and the largest difference of top-1 in points."""
    others = {row["job"]: row for row in second if row["state"] == "done"}
    lines, most = ["| job | top-1 | again | bytes | again |", "| --- | ---: | ---: | ---: | ---: |"], 0.0
    for row in first:
        if row["state"] != "done" or row["job"] not in others:
            continue
        nets = row["result"], others[row["job"]]["result"]
        if all("top1" in net["measures"] for net in nets):
            tops = [100 * net["measures"]["top1"] for net in nets]
            most = max(most, abs(tops[0] - tops[1]))
        cells = [_score(net["measures"]) for net in nets] + [f"{net['bytes']:,}" for net in nets]
        lines.append(f"| {row['job']} | {' | '.join(cells)} |")
    return "\n".join(lines), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="FOLDER")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="compare with a second run, and write nothing")
    given = parser.parse_args()
    rows = rows_of(given.sweep, os.environ.get("DATA", ""))
    if given.against:
        shown, most = compared(rows, rows_of(given.against))
        print(f"{shown}\n\nlargest difference of top-1: {most:.2f} points; play: {PLAY}")
        sys.exit(most > PLAY)
    jobs = [job.name for job in load_grid(GRID).jobs]
    RESULTS.write_text(json.dumps(replaced(json.loads(RESULTS.read_text()), rows, jobs), indent=1) + "\n")
    print(table(rows))
    for row in rows:
        if row["state"] != "done":
            print(f"{row['job']}: {row['code']}: {row['message']}", file=sys.stderr)


if __name__ == "__main__":
    main()
