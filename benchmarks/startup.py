"""Seconds of commands that have little to do: help, the demo, a plan from predicted errors that are known.

    python benchmarks/startup.py [--rounds 5]

Medians, each command in a process of its own, on the bundled net: a row for results/startup.jsonl. Nothing else should
run on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from commands import KDNA, Row, append, machine, rows, run, table

RESULTS = Path(__file__).parent / "results" / "startup.jsonl"
PLAN = ("plan", "kdna:digits", "--data", "kdna:digits/train", "--target-params", "0.25", "--database", "errors.json")
COMMANDS = {
    "`kdna --help`": ("--help",),
    "`kdna ls recipes`": ("ls", "recipes"),
    "`kdna plan kdna:digits`, predicted errors known": PLAN,
    "`kdna demo`": ("demo",),
}


def measure(rounds: int, folder: Path) -> dict[str, float]:
    """The median seconds of each command, the first run of it left out."""
    found = {}
    for name, arguments in COMMANDS.items():
        known = [str(folder / part) if part == "errors.json" else part for part in arguments]
        seconds = [run([*KDNA, *known])[1].seconds for _ in range(rounds + 1)][1:]
        found[name] = round(statistics.median(seconds), 2)
    return found


def summary(found: Sequence[Row]) -> str:
    """The last row."""
    return table(["command", "seconds"], [[name, f"{took:.1f}"] for name, took in found[-1]["seconds"].items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        append(given.results, {"seconds": measure(given.rounds, Path(folder)), **machine()})
    print(summary(rows(given.results)))


if __name__ == "__main__":
    main()
