"""What 1x1 and 3x3 layers of equal inputs gain by sharing one bank of shared CP: nothing (docs/decisions/0005).

    python benchmarks/taps.py torchvision:squeezenet1_1 --checkpoint W.safetensors --data IMAGES

For every width that layers of both kinds read, the relative weighted error at a share of their dense parameters: in one
family of one rank, and in two families whose ranks are chosen apart (a 1x1 family may also stay dense).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence

from schemes import fit, within

from kdna_convert.api.cached_moments import moments_of
from kdna_convert.api.job import open_job
from kdna_convert.api.keywords import JobOptions
from kdna_convert.core.linalg import Target, weighted_energy
from kdna_convert.core.specs import Family, product
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.stages.analyze.targets import targets

SWEEPS = 60


def dense(aims: Sequence[Target]) -> int:
    return sum(product(aim.shape) for aim in aims)


def together(points: Sequence[Target], kernels: Sequence[Target], most: float) -> float:
    both = [*points, *kernels]
    scheme = within("cp", {}, [aim.shape for aim in both], most)
    return 1.0 if scheme is None else fit(scheme, both, SWEEPS)


def apart(points: Sequence[Target], kernels: Sequence[Target], most: float) -> float:
    """The best division of the parameters among those tried."""
    whole, errors = weighted_energy([*points, *kernels]), [1.0]
    for share in (0.3, 0.5, 0.7, 1.0):
        first = within("cp", {}, [aim.shape for aim in points], share * dense(points)) if share < 1 else None
        second = within("cp", {}, [aim.shape for aim in kernels], most - share * dense(points))
        if second is not None and (first is not None or share == 1):
            left = 0.0 if first is None else fit(first, points, SWEEPS) * weighted_energy(points)
            errors.append((left + fit(second, kernels, SWEEPS) * weighted_energy(kernels)) / whole)
    return min(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.7, 0.5, 0.35])
    args = parser.parse_args()
    options: JobOptions = {"checkpoint": args.checkpoint}
    text = f"scheme: cp\ncalibration: {{images: {args.images}, heldout: 0, batch: 50}}\n"
    recipe = parse_recipe(text, name="benchmarks/taps.py")
    job = open_job(args.model, recipe, args.data, options, None)
    moments = moments_of(job, None, None)
    by_width: dict[int, list[str]] = defaultdict(list)
    for layer in job.layers:
        if layer.name in moments and layer.groups == 1:
            by_width[layer.in_channels].append(layer.name)
    print("| channels | kept | one family | two families |\n| ---: | ---: | ---: | ---: |")
    for width, names in sorted(by_width.items()):
        aims = targets(job.loaded.model, Family("cp", tuple(names)), moments)
        points = [aim for aim in aims if product(aim.shape[2:]) == 1]
        kernels = [aim for aim in aims if product(aim.shape[2:]) > 1]
        for keep in args.keep if points and kernels else ():
            budget = keep * dense(aims)
            errors = [how(points, kernels, budget) for how in (together, apart)]
            print(f"| {width} | {keep:.0%} | {errors[0]:.4f} | {errors[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
