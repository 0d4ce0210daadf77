"""Measured KL divergence beside the error that a plan predicts, before and after repair (docs/decisions/0021).

    python benchmarks/expected.py examples/cifar_resnet.py:resnet20 --checkpoint W.safetensors --data IMAGES

One row a share of the parameters: the predicted error of the plan, then, on held-out images, KL divergence and top-1
agreement of the conversion before repair and after the repair of the recipe. `--data digits` stands for scikit-learn's
digits, the data of the bundled net. `--json` writes the rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from baselines import require_baseline

import kdna_convert as kdna
from kdna_convert.core.errors import PlanError
from kdna_convert.inputs.digits import digits
from kdna_convert.inputs.recipe import load_recipe

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def rows(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """The measured conversions of one recipe."""
    recipe = load_recipe(name)
    calibration = {"images": args.images, "heldout": args.heldout, "batch": 32}
    update: dict[str, Any] = {"calibration": recipe.calibration.model_copy(update=calibration)}
    if args.repair is not None:
        update["repair"] = type(recipe)(scheme="cp", repair=args.repair).repair
    recipe = recipe.model_copy(update=update)
    data = digits("train")[0] if args.data == "digits" else args.data
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        files = {"moments": Path(work) / "moments.safetensors", "database": Path(work) / "database.json"}
        for share in args.shares:
            try:
                conversion = kdna.convert(
                    args.model, recipe=recipe, data=data, checkpoint=args.checkpoint, target_params=share, **files
                )
            except PlanError:
                break
            steps, after = conversion.report.repair, conversion.report.divergence
            before = steps[0].before if steps else after
            row = {"recipe": name, "share": share, "predicted": sum(conversion.plan.predicted.values())}
            row |= {"before": (before.kl, before.agreement), "after": (after.kl, after.agreement)}
            print(
                f"{args.model} {name} {share:4.2f}  predicted {row['predicted']:9.3g}  "
                f"before {before.kl:9.3g} {before.agreement:6.1%}  "
                f"after {after.kl:9.3g} {after.agreement:6.1%}",
                flush=True,
            )
            measured.append(row)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", nargs="+", default=["balanced"])
    parser.add_argument("--repair", nargs="*", help="steps instead of the recipe's")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--heldout", type=int, default=128)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    require_baseline(args.model, args.checkpoint)
    measured = [row for name in args.recipe for row in rows(args, name)]
    if args.json is not None:
        args.json.write_text(json.dumps({"model": args.model, "rows": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
