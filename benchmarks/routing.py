"""Each routing on a trained net: what it adds, what it slows down, and what it wins under one fine-tune.

    python benchmarks/routing.py examples/cifar_resnet.py:resnet20 --checkpoint CKPT --train DATA/train \
        --evaluate DATA/test --teacher examples/cifar_resnet.py:resnet56 --teacher-checkpoint CKPT56 --time 10m

Every row starts from the same answers: the original's with `--recipe "scheme: dense"`, or those of the shared net where
the recipe shares. `none` is the control: the same fine-tune without a routing. Throughput is against the dense net,
batch 32, all nets taking turns in one run; `--time 0` measures that alone, of any net, without images. Nothing is
chosen on `--evaluate`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from baselines import require_baseline

import kdna_convert as kdna
from kdna_convert.core.heap import keep_freed
from kdna_convert.inputs.models import example_input, load_model
from kdna_convert.inputs.recipe import parse_recipe, parse_time
from kdna_convert.network.folder import Conversion
from kdna_convert.stages.evaluate.timing import Timing, benchmark

COMPARED = (
    "none",
    "se",
    "context",
    "{name: omni, kernels: 1}",
    "{name: omni, kernels: 4}",
    "cond",
    "dyconv",
    "partial",
    "warehouse",
    "frequency",
)
SETTINGS = ("time", "recipe", "train_what", "mixup", "label_weight", "precision")
COLUMNS = ("routing", "params", "macs", "throughput", "before", "after", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--checkpoint")
    parser.add_argument("--train")
    parser.add_argument("--evaluate")
    parser.add_argument("--teacher")
    parser.add_argument("--teacher-checkpoint")
    parser.add_argument("--recipe", default="scheme: dense", help="YAML, but for its routing")
    parser.add_argument("--routings", nargs="+", default=COMPARED)
    parser.add_argument("--time", default="10m")
    parser.add_argument("--mixup", type=float, default=1.0)
    parser.add_argument(
        "--label-weight", type=float, default=0.0, help="for a net without a better teacher; no --mixup"
    )
    parser.add_argument("--train-what", default="adapters", help="what is free to change: adapters, shared, all")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.time != "0":
        require_baseline(given.model, given.checkpoint)
        if given.teacher:
            require_baseline(given.teacher, given.teacher_checkpoint)
    conversions = {routing: convert(given, routing) for routing in given.routings}
    dense = load_model(given.model, checkpoint=given.checkpoint)
    nets = {"dense": dense.model, **{routing: conversion.model for routing, conversion in conversions.items()}}
    timed = {row.name: row for row in benchmark(nets, example_input(dense.data, 32), rounds=given.rounds)}
    print(f"{timed['dense'].device}, batch 32, dense {timed['dense'].ms:.1f} ms")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    rows = []
    for routing, conversion in conversions.items():
        rows.append(studied(given, routing, conversion, timed[routing]))
        print(f"| {' | '.join(str(rows[-1][column]) for column in COLUMNS)} |", flush=True)
        if given.out is not None:
            settings = {name: getattr(given, name) for name in SETTINGS}
            about = {"device": timed["dense"].device, "dense": asdict(timed["dense"]), **settings}
            given.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def convert(given: argparse.Namespace, routing: str) -> Conversion:
    recipe = parse_recipe(f"{given.recipe}\nrouting: {routing}\n")
    return kdna.convert(given.model, checkpoint=given.checkpoint, recipe=recipe, data=given.train)


def studied(given: argparse.Namespace, routing: str, conversion: Conversion, timing: Timing) -> dict[str, object]:
    before, after, spent = None, None, 0.0
    if given.time != "0":
        before = kdna.evaluate(conversion, data=given.evaluate).top1
        tuned = kdna.finetune(
            conversion,
            data=given.train,
            teacher=given.teacher,
            teacher_checkpoint=given.teacher_checkpoint,
            seconds=parse_time(given.time),
            mixup=given.mixup,
            label_weight=given.label_weight,
            train=given.train_what,
            precision=given.precision,
        )
        after, spent = kdna.evaluate(tuned, data=given.evaluate).top1, tuned.report.finetune.seconds
    return {
        "routing": routing,
        "params": sum(parameter.numel() for parameter in conversion.model.parameters()),
        "macs": conversion.plan.planned.macs,
        "throughput": round(1 / timing.ratio, 3),
        "before": before,
        "after": after,
        "seconds": round(spent),
    }


if __name__ == "__main__":
    keep_freed()  # as the command line does
    torch.manual_seed(0)
    main()
