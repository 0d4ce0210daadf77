"""The results of benchmarks/zoo.yaml as data, and the table of docs/explanation/results.md made from them.

    DATA=/path/to/data kdna sweep benchmarks/zoo.yaml -o zoo
    python benchmarks/zoo.py zoo                    # rows to benchmarks/results/zoo.json, and the table
    python benchmarks/zoo.py zoo --against zoo2     # how far a second run is from the first; exit code 1 beyond PLAY

A row has the command that repeats it, in which DATA stands for the folder of the data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdna_convert.inputs.grid_reading import load_grid

GRID = Path(__file__).parent / "zoo.yaml"
RESULTS = Path(__file__).parent / "results" / "zoo.json"
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "results.md"
BEGIN, END = "<!-- zoo -->", "<!-- /zoo -->"
# A second run's top-1 may differ by so much, in points: so do conversions that round differently.
PLAY = 0.3
HEAD = (
    "net",
    "recipe",
    "budget",
    "parameters",
    "bytes",
    "top-1 of the original",
    "top-1",
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
        found.append({**row, "command": command, "host": ""})
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The done rows as a table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"| --- | --- | --- |{' ---: |' * (len(HEAD) - 3)}"]
    for row in rows:
        if row["state"] != "done":
            continue
        original, net = row["original"], row["result"]
        own = net["measures"]
        kept = f"{net['params']:,} ({100 * net['params'] / original['params']:.0f} %)"
        size = f"{net['bytes']:,} (1/{original['bytes'] / net['bytes']:.1f})"
        scores = [f"{100 * original['measures']['top1']:.2f}", f"{100 * own['top1']:.2f}"]
        scores += [f"{100 * own['agreement']:.2f} %", f"{own['kl']:.4f}"]
        spent = f"{row['cpu_seconds'] / 60:.1f}" if row["cpu_seconds"] else "-"
        cells = [row["net"], f"`{row['recipe']}`", row["budget"], kept, size, *scores, spent]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(page: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of these rows between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}"


def compared(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """Top-1 and bytes of two runs beside each other, and the largest difference of top-1 in points."""
    others = {row["job"]: row for row in second if row["state"] == "done"}
    lines, most = ["| job | top-1 | again | bytes | again |", "| --- | ---: | ---: | ---: | ---: |"], 0.0
    for row in first:
        if row["state"] != "done" or row["job"] not in others:
            continue
        nets = row["result"], others[row["job"]]["result"]
        tops = [100 * net["measures"]["top1"] for net in nets]
        most = max(most, abs(tops[0] - tops[1]))
        cells = [f"{top:.2f}" for top in tops] + [f"{net['bytes']:,}" for net in nets]
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
    wanted = {job.name for job in load_grid(GRID).jobs}
    rows = [row for row in rows if row["job"] in wanted]  # the grid may have changed since
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), rows))
    print(table(rows))
    for row in rows:
        if row["state"] != "done":
            print(f"{row['job']}: {row['code']}: {row['message']}", file=sys.stderr)


if __name__ == "__main__":
    main()
