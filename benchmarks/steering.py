"""Milliseconds from a budget to its plan, as `kdna explore` solves it at every move of its slider.

    kdna plan MODEL --data IMAGES --recipe accurate --database errors.json
    python benchmarks/steering.py errors.json

For each kind of budget: the median and the most of 32 shares, evenly spaced from the smallest that has a plan to the
whole net. The first plan of a kind, which computes the prices, is among them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from kdna_convert.core.choices import Database
from kdna_convert.core.specs import from_json
from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.steered import answer, bounds_of, kinds_of, steered

SHARES = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, help="what `kdna plan --database` wrote")
    database = from_json(Database, parser.parse_args().database.read_bytes())
    print("| budget | median, ms | most, ms |\n| --- | ---: | ---: |")
    for kind in kinds_of(database, coded=False):
        least, whole = bounds_of(steered(database), kind)
        at, times = steered(database), []
        for place in range(SHARES):
            amount = least + (whole - least) * place // (SHARES - 1)
            began = time.perf_counter()
            answer(at, PlanBudget(kind, amount))
            times.append(1000 * (time.perf_counter() - began))
        print(f"| {kind} | {statistics.median(times):.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
