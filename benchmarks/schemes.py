"""What each scheme leaves of a family's output error at equal parameters: the table of docs/explanation/schemes.md.

    python benchmarks/schemes.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors --data IMAGES

Families are the layers of equal kernel shape, where every scheme can share. Each scheme takes its largest size that
stores no more than the share of their dense parameters, gates and header aside, and fits as `kdna convert` does. The
figure is the weighted output error, relative to the weighted output energy, under the moments of 1,000 images.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import yaml

from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.api.keywords import JobOptions
from kdna_convert.core.linalg import Target, fit_error, weighted_energy
from kdna_convert.core.specs import Family, Shape, product
from kdna_convert.schemes import SCHEMES, make
from kdna_convert.stages.analyze.targets import targets
from kdna_convert.stages.plan.costs import stored_tensors


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
    parser.add_argument("--schemes", nargs="+", default=[*(name for name in SCHEMES if name != "kerneldna")])
    parser.add_argument("--sweeps", type=int, default=150)
    args = parser.parse_args()
    options: JobOptions = {"checkpoint": args.checkpoint}
    job = open_job(args.model, "shared-cp", args.data, options, None)
    moments = moments_of(job, None, None)
    alike: dict[Shape, list[str]] = defaultdict(list)
    for layer in job.layers:
        if layer.name in moments and layer.taps > 1:
            alike[layer.shape].append(layer.name)
    families = [targets(job.loaded.model, Family("cp", tuple(names)), moments) for names in alike.values() if names[1:]]
    for aims in families:
        print(f"{len(aims)} layers of {'x'.join(map(str, aims[0].shape))}")
    columns = [f"{aims[0].shape[0]} wide, {keep:.0%}" for aims in families for keep in args.keep]
    print("| scheme |", " | ".join(columns), "| seconds |")
    print("| --- |", " | ".join("---:" for _ in columns), "| ---: |")
    for text in args.schemes:
        began, cells = time.perf_counter(), []
        for aims in families:
            shapes = [aim.shape for aim in aims]
            for keep in args.keep:
                scheme = within(*named(text), shapes, keep * sum(map(product, shapes)))
                cells.append("-" if scheme is None else f"{fit(scheme, aims, args.sweeps):.4f}")
        print(f"| {text} |", " | ".join(cells), f"| {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
