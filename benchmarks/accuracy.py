"""Accuracy against parameters kept, without any training: convert at a few budgets, evaluate each on held-out images.

    python benchmarks/accuracy.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors \
        --calibrate cifar10/train --evaluate cifar10/test --recipes shared-cp shared-basis lowrank --keep 0.5 0.35 0.25

Calibration images come from --calibrate alone and their labels are not read. Prints a Markdown table and, with
--output, writes the rows as JSON; benchmarks/README.md holds what was measured and where.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from baselines import require_baseline

import kdna_convert as kdna
from kdna_convert.core import linalg

COLUMNS = ("recipe", "keep", "params", "bytes", "top1", "agreement", "kl", "predicted", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--calibrate", required=True)
    parser.add_argument("--evaluate", required=True)
    parser.add_argument("--class-map")
    parser.add_argument("--recipes", nargs="+", default=["shared-cp"])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.5])
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument("--interpolation")
    parser.add_argument("--full-metric-patch", type=int, help="longest patch searched in its full metric")
    parser.add_argument("--output", type=Path, help="the rows, as JSON")
    parser.add_argument("--save", type=Path, help="keep the converted folders here, as RECIPE-KEEP")
    args = parser.parse_args()
    if args.full_metric_patch is not None:
        linalg.FULL_METRIC_PATCH = args.full_metric_patch
    given = {"mean": args.mean, "std": args.std, "interpolation": args.interpolation}
    inputs = {key: value for key, value in given.items() if value}
    images = {"class_map": args.class_map}
    source = {"checkpoint": args.checkpoint, "inputs": inputs}

    require_baseline(args.model, args.checkpoint, inputs)
    base = kdna.evaluate(args.model, data=args.evaluate, **images, **source)
    rows = [{"recipe": "original", "keep": 1.0, "params": base.params, "bytes": base.bytes, "top1": base.top1}]
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    show(rows[0])
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in args.recipes:
            for keep in args.keep:
                began = time.perf_counter()
                conversion = kdna.convert(
                    args.model,
                    recipe=recipe,
                    data=args.calibrate,
                    target_params=keep,
                    moments=f"{scratch}/moments",
                    database=f"{scratch}/{recipe}.json",
                    **source,
                )
                seconds = time.perf_counter() - began
                if args.save:
                    kdna.save(conversion, args.save / f"{recipe}-{keep}", force=True)
                measured = kdna.evaluate(conversion, data=args.evaluate, **images)
                rows.append(
                    {
                        "recipe": recipe,
                        "keep": keep,
                        "params": conversion.plan.planned.params,
                        "bytes": conversion.plan.planned.bytes,
                        "top1": measured.top1,
                        "agreement": measured.agreement,
                        "kl": measured.kl,
                        "predicted": sum(conversion.plan.predicted.values()),
                        "seconds": round(seconds, 1),
                    }
                )
                show(rows[-1])
    if args.output:
        args.output.write_text(json.dumps({"model": args.model, "rows": rows}, indent=1) + "\n")


def show(row: dict[str, object]) -> None:
    cells = [row.get(column, "") for column in COLUMNS]
    print(
        "| " + " | ".join(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


if __name__ == "__main__":
    main()
