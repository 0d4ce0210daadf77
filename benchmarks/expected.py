"""How far a converted net is from what its plan predicts: measured KL over predicted error (docs/decisions/0021).

    python benchmarks/expected.py examples/cifar_resnet.py:resnet20 --checkpoint W.safetensors --data IMAGES

One row a share of the parameters: the plan's predicted error, the KL divergence and the top-1 agreement of a quick fit
without repair on held-out images, and the ratio of the two. `--data digits` stands for scikit-learn's digits. `--json`
writes the rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import kdna_convert as kdna
from kdna_convert.inputs.digits import digits
from kdna_convert.inputs.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", nargs="+", default=["balanced"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--heldout", type=int, default=128)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, float | str]] = []
    for name in args.recipe:
        recipe = load_recipe(name)
        calibration = recipe.calibration.model_copy(
            update={"images": args.images, "heldout": args.heldout, "batch": 32}
        )
        began = time.perf_counter()
        curve = kdna.curve(
            args.model,
            recipe=recipe.model_copy(update={"calibration": calibration}),
            data=digits("train")[0] if args.data == "digits" else args.data,
            checkpoint=args.checkpoint,
            shares=args.shares,
            measure=True,
        )
        print(f"{args.model}, {name}: {time.perf_counter() - began:.0f} s")
        for point in curve.points:
            kl, agreement = point.measured.kl, point.measured.agreement
            ratio = kl / point.predicted if point.predicted else float("nan")
            print(f"{point.share:6.2f} {point.predicted:10.4g} {kl:10.4g} {agreement:8.3f} {ratio:10.3f}", flush=True)
            rows.append(
                {
                    "recipe": name,
                    "share": point.share,
                    "predicted": point.predicted,
                    "kl": kl,
                    "agreement": agreement,
                }
            )
    if args.json is not None:
        args.json.write_text(json.dumps({"model": args.model, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
