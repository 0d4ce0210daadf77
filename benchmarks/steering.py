"""Milliseconds from a budget to its plan, as `kdna explore` solves it at every move of its slider.

    kdna plan MODEL --data IMAGES --recipe accurate --database errors.json
    python benchmarks/steering.py errors.json
    python benchmarks/steering.py --net "timm:resnet152(pretrained=False)" --recipe accurate

For each kind of budget: the median and the most of `--shares` budgets, evenly spaced from the smallest that has a plan
to the whole net. The first plan of a kind, which computes the prices, is among them. The last line is a digest of all
plans: equal plans have equal digests.

With `--net`, the families and their sizes are those of the net and the recipe, and their errors are made up: no weights
and no images are read. Every family that a plan may split into single layers is split, which gives the most families.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kdna_convert.api.cached_database import _divisible, _families
from kdna_convert.api.job import open_job, surveyed_net
from kdna_convert.core.choices import Choice, Database
from kdna_convert.core.specs import Family, from_json
from kdna_convert.schemes import scheme_of
from kdna_convert.stages.plan.budget import PlanBudget
from kdna_convert.stages.plan.database import _size_at, build_database
from kdna_convert.stages.plan.steered import answer, bounds_of, kinds_of, steered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, nargs="?", help="what `kdna plan --database` wrote")
    parser.add_argument("--net", help="MODEL, in place of a database: its errors are made up")
    parser.add_argument("--recipe", default="accurate")
    parser.add_argument("--shares", type=int, default=32, help="budgets of each kind, 2 or more")
    args = parser.parse_args()
    if (args.net is None) == (args.database is None):
        parser.error("give a database or --net")
    database = made_up(args.net, args.recipe) if args.net else from_json(Database, args.database.read_bytes())
    layers = {name for choice in database.choices for name in choice.family.members}
    print(f"{len(layers)} layers, {len(database.choices)} families\n")
    print("| budget | median, ms | most, ms |\n| --- | ---: | ---: |")
    digest = hashlib.sha256()
    for kind in kinds_of(database, coded=False):
        least, whole = bounds_of(steered(database), kind)
        at, times = steered(database), []
        for place in range(args.shares):
            amount = least + (whole - least) * place // (args.shares - 1)
            began = time.perf_counter()
            plan = answer(at, PlanBudget(kind, amount)).plan
            times.append(1000 * (time.perf_counter() - began))
            digest.update(repr(None if plan is None else plan.families).encode())
        print(f"| {kind} | {statistics.median(times):.0f} | {max(times):.0f} |")
    print(f"\nplans {digest.hexdigest()[:16]}")


def made_up(model: str, recipe: str) -> Database:
    """The database of a net with made-up errors, which fall as a family grows."""
    job = open_job(model, recipe, None, {}, None)
    layers, families, own = _families(job, job.layers, None)
    divided = divisible_parts(families, _divisible(job, families[:own]))
    built = build_database(surveyed_net(job, layers), divided, job.recipe, None)
    weights = {layer.name: layer.params**0.5 * sensitivity(layer.name) for layer in layers}
    return replace(built, choices=tuple(priced(choice, weights) for choice in built.choices))


def divisible_parts(families: Sequence[Family], divisible: set[int]) -> list[Family]:
    """The families, with a family for each layer in place of those at these places."""
    parts: list[Family] = []
    for place, family in enumerate(families):
        split = place in divisible
        parts += [replace(family, members=(name,)) for name in family.members] if split else [family]
    return parts


def sensitivity(name: str) -> float:
    """A number for a name, spread over two orders of magnitude."""
    return random.Random(name).lognormvariate(0, 1.2)


def priced(choice: Choice, weights: Mapping[str, float]) -> Choice:
    """The choice with errors at the sizes of quick fits, which fall by a power of the size."""
    whole = sum(weights[name] for name in choice.family.members)
    power = random.Random(repr(choice.family)).uniform(0.3, 1)
    sizes = sorted({_size_at(choice, probe) for probe in scheme_of(choice.family).probes})
    return replace(choice, points={size: whole * (1 + size) ** -power for size in sizes})


if __name__ == "__main__":
    main()
