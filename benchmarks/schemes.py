"""What each scheme leaves of a family's output error at equal parameters: the table of docs/explanation/schemes.md.

    python benchmarks/schemes.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors --data IMAGES

Families are the layers of equal kernel shape, where every scheme can share. Each scheme takes its largest size that
stores no more than the share of their dense parameters, gates and header aside, and fits as `kdna convert` does. The
figure is the weighted output error, relative to the weighted output energy, under the moments of 1,000 images. Schemes
that results/schemes.jsonl has are not fitted again.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from commands import Row, append, machine, rows, table

from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.api.keywords import JobOptions
from kdna_convert.core.linalg import Target, fit_error, weighted_energy
from kdna_convert.core.specs import Family, Shape, product
from kdna_convert.schemes import make
from kdna_convert.stages.analyze.targets import targets
from kdna_convert.stages.plan.costs import stored_tensors

RESULTS = Path(__file__).parent / "results" / "schemes.jsonl"
# With several settings of two schemes. `kerneldna` is no fit: it needs its fine-tune.
COMPARED = [
    *("cp", "separable", "basis", "warehouse:cell=8", "warehouse:cell=16", "warehouse:cell=32"),
    *("tucker", "output", "lowrank", "atoms", "codebook", "codebook:gain=filter"),
]


def stored(scheme: Any, shapes: Sequence[Shape]) -> int:
    """The parameters that the scheme keeps of a family of these kernels."""
    family = Family(scheme.name, tuple(map(str, range(len(shapes)))), dict(vars(scheme)))
    return sum(product(spec.shape) for spec in stored_tensors(family, scheme.layout(shapes), "F32"))


def within(name: str, options: dict[str, Any], shapes: Sequence[Shape], most: float) -> Any:
    """The scheme at its largest size that stores at most so many parameters; None if its smallest stores more."""
    kind = make(name, options)
    sizes = range(kind.smallest, kind.limit(shapes) + 1)
    fitting = bisect_right(sizes, most, key=lambda size: stored(make(name, {**options, kind.size: size}), shapes))
    return make(name, {**options, kind.size: sizes[fitting - 1]}) if fitting else None


def fit(scheme: Any, aims: Sequence[Target], sweeps: int) -> float:
    """The relative weighted error that its fit leaves."""
    shared, adapters = scheme.share(aims, seed=0, sweeps=sweeps)
    gaps = [
        aim.weight * fit_error(scheme.expand(shared, adapter, aim.shape).flatten(1), aim)
        for adapter, aim in zip(adapters, aims, strict=True)
    ]
    return sum(gaps) / weighted_energy(aims)


def named(text: str) -> tuple[str, dict[str, Any]]:
    """`codebook:gain=filter:codes=2` as a name and its options."""
    name, *options = text.split(":")
    return name, {key: yaml.safe_load(value) for key, value in (option.split("=") for option in options)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.35, 0.25])
    parser.add_argument("--schemes", nargs="+", default=COMPARED)
    parser.add_argument("--sweeps", type=int, default=150)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    options: JobOptions = {"checkpoint": args.checkpoint}
    job = open_job(args.model, "shared-cp", args.data, options, None)
    moments = moments_of(job, None, None)
    alike: dict[Shape, list[str]] = defaultdict(list)
    for layer in job.layers:
        if layer.name in moments and layer.taps > 1:
            alike[layer.shape].append(layer.name)
    families = [targets(job.loaded.model, Family("cp", tuple(names)), moments) for names in alike.values() if names[1:]]
    for text in args.schemes:
        if text in {row["scheme"] for row in rows(args.results)}:
            continue
        began, errors = time.perf_counter(), {}
        for aims in families:
            shapes = [aim.shape for aim in aims]
            for keep in args.keep:
                scheme = within(*named(text), shapes, keep * sum(map(product, shapes)))
                error = None if scheme is None else fit(scheme, aims, args.sweeps)
                errors[f"{len(aims)} layers, {aims[0].shape[0]} wide, {keep:.0%}"] = error
        seconds = round(time.perf_counter() - began, 1)
        print(append(args.results, {"scheme": text, "errors": errors, "seconds": seconds, **machine()}), flush=True)
    print(summary(rows(args.results)))


def summary(found: Sequence[Row]) -> str:
    """The error of each scheme in each column, the best in bold; sorted by the sum."""
    last = {row["scheme"]: row for row in found}.values()
    columns = list(next(iter(last))["errors"])
    least = {
        column: min(row["errors"][column] for row in last if row["errors"][column] is not None) for column in columns
    }
    lines = []
    for row in sorted(last, key=lambda row: sum(1 if error is None else error for error in row["errors"].values())):
        cells = ["-" if row["errors"][column] is None else f"{row['errors'][column]:.4f}" for column in columns]
        marked = [
            f"**{cell}**" if row["errors"][column] == least[column] else cell
            for cell, column in zip(cells, columns, strict=True)
        ]
        lines.append([f"`{row['scheme']}`", *marked, f"{row['seconds']:.0f}"])
    return table(["scheme", *(column.partition(", ")[2].replace("%", " %") for column in columns), "seconds"], lines)


if __name__ == "__main__":
    main()
