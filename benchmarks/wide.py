"""Seconds and peak memory of a whole conversion of a wide net: by default timm's resnet50, random weights, 224 px.

    python benchmarks/wide.py --data IMAGES [--model NAME] [--images 64] [--keep 0.5] [--recipe shared-cp]

Prints what each stage took. Random weights converge sooner than trained ones: --rescale gives every convolution's
kernel a falling spectrum, as training does, so that the fits run to their last iteration.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import kdna_convert as kdna
from kdna_convert.inputs.models import load_model
from kdna_convert.inputs.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="timm:resnet50(pretrained=False)")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--recipe", default="shared-cp")
    parser.add_argument("--rescale", action="store_true")
    args = parser.parse_args()
    overrides = [f"calibration.images={args.images}", "calibration.heldout=32", "calibration.batch=16"]
    loaded = load_model(args.model)
    loaded.model.pretrained_cfg = {"input_size": loaded.data.input_size}
    if args.rescale:
        for module in loaded.model.modules():
            if isinstance(module, torch.nn.Conv2d):
                left, values, right = torch.linalg.svd(module.weight.detach().flatten(1), full_matrices=False)
                falling = values.norm() * torch.arange(1, len(values) + 1) ** -1.0
                module.weight.data = ((left * falling) @ right).view_as(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.fill_(1.0)  # timm starts the last of each block at zero: nothing would be felt
    began, last = time.perf_counter(), ["start", time.perf_counter()]

    def progress(doing: str, done: int, total: int) -> None:
        stage = doing.split(" ")[0]
        if stage != last[0]:
            now = time.perf_counter()
            print(f"{last[0]:12} {now - float(last[1]):7.1f} s   peak {peak():.2f} GiB", flush=True)
            last[:] = [stage, now]

    conversion = kdna.convert(
        loaded.model,
        recipe=load_recipe(args.recipe, overrides),
        data=args.data,
        target_params=args.keep,
        progress=progress,
    )
    progress("end", 0, 0)
    for family in conversion.plan.families:
        print(family.members[0], len(family.members), "layers", family.options)
    print(f"{conversion.plan.planned} of {conversion.plan.original}; {conversion.report.divergence}")
    print(f"in all {time.perf_counter() - began:.0f} s, peak {peak():.2f} GiB")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
