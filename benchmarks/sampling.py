"""What drawing few patches costs: the output error of low rank at half the parameters, on other images.

    python benchmarks/sampling.py MODEL --checkpoint W.safetensors --data IMAGES [--layers NAME ...]

Each row fits the layers on moments of n patches times a factor, for patches of n numbers, spread over the images. The
error is relative to the output energy, both under the moments of all positions of the held-out images.
"""

from __future__ import annotations

import argparse
import time

from schemes import within

from kdna_convert.api.job import Job, open_job
from kdna_convert.core.linalg import Target, fit_error
from kdna_convert.core.specs import Family, Layer, product
from kdna_convert.inputs.data import Images, Inputs, Reading
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.stages.analyze.collect import POSITIONS, Sampling, collect
from kdna_convert.stages.analyze.moments import Moments
from kdna_convert.stages.analyze.targets import targets

SWEEPS = 60


def moments(job: Job, layers: list[Layer], images: Images, sampling: Sampling) -> Moments:
    return collect(job.loaded.model, layers, Inputs(Reading(images, 50)), gradients="none", sampling=sampling)


def error(aim: Target, judge: Target, keep: float) -> float:
    scheme = within("lowrank", {}, [aim.shape], keep * product(aim.shape))
    shared, (adapter,) = scheme.share([aim], seed=0, sweeps=SWEEPS)
    return fit_error(scheme.expand(shared, adapter, aim.shape).flatten(1), judge) / judge.energy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--heldout", type=int, default=256)
    parser.add_argument("--patches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--layers", nargs="+", required=True)
    parser.add_argument("--keep", type=float, default=0.5)
    args = parser.parse_args()
    text = f"scheme: cp\ncalibration: {{images: {args.images}, heldout: {args.heldout}, batch: 50}}\n"
    job = open_job(args.model, parse_recipe(text, name=__file__), args.data, {"checkpoint": args.checkpoint}, None)
    layers = [layer for layer in job.layers if layer.name in args.layers]
    if job.calibration is None or job.heldout is None:
        parser.error("pass --data")
    net, calibration, count = job.loaded.model, job.calibration, len(job.calibration)

    def aims(found: Moments) -> list[Target]:
        return [targets(net, Family("lowrank", (layer.name,)), found)[0] for layer in layers]

    judges = aims(moments(job, layers, job.heldout, Sampling(None)))
    print(f"| patches | {' | '.join(f'{layer.name}, n = {layer.patch}' for layer in layers)} | CPU seconds |")
    print("| --- |" + " ---: |" * (len(layers) + 1))
    for factor in [*args.patches, None]:
        began = time.process_time()
        sampling = Sampling() if factor is None else Sampling(patches=factor, images=count)
        found = moments(job, layers, calibration, sampling)
        seconds = time.process_time() - began
        errors = [error(aim, judge, args.keep) for aim, judge in zip(aims(found), judges, strict=True)]
        label = f"{POSITIONS} per image" if factor is None else f"{factor} n"
        print(f"| {label} | {' | '.join(f'{each:.4f}' for each in errors)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
