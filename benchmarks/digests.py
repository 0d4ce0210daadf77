"""Record what conversions contain, to the bit, and compare with an earlier record: for changes that change no number.

    python benchmarks/digests.py --checkpoint W.safetensors --data IMAGES -o before.json
    python benchmarks/digests.py --checkpoint W.safetensors --data IMAGES --check before.json

Run it from the root. W is the CIFAR-10 ResNet-20 of examples/cifar_resnet.py. The cases are the demo net, ResNet-20 by
every bundled recipe, a routed, a coded and a shrunk net, on few images and one thread. The record holds the sha256 of
plan.json and of every tensor; where a recipe does not fit ResNet-20, the error's code. Digests of one machine and one
version of torch compare with one another only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

import kdna_convert as kdna
from kdna_convert.inputs.recipe import bundled, load_recipe

NET = "examples/cifar_resnet.py:resnet20"  # relative, since plan.json records it: run this from the root
DIGITS, WEIGHTS = "kdna_convert.digits:digits_net", "kdna_convert/assets/digits.safetensors"
FEW = ["calibration.images=256", "calibration.heldout=128"]


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of plan.json and of every tensor of a converted folder, by name."""
    hashes = {"plan.json": hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest()}
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        hashes[name] = hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    return hashes


def cases(checkpoint: str, data: str) -> dict[str, Callable[[], kdna.Conversion]]:
    """Every case by its name; each call makes the conversion anew."""

    def resnet20(recipe: str, *overrides: str, **goals: object) -> kdna.Conversion:
        return kdna.convert(
            NET, recipe=load_recipe(recipe, [*FEW, *overrides]), checkpoint=checkpoint, data=data, **goals
        )

    def by_recipe(name: str) -> Callable[[], kdna.Conversion]:
        return lambda: resnet20(name)

    def demo() -> kdna.Conversion:
        return kdna.finetune(_digits(), data=_digits_images(), epochs=1)

    def shrunk() -> kdna.Conversion:
        return kdna.shrink(resnet20("shared-cp", "nested=true"), target_params=0.35, data=data)

    half: dict[str, object] = {"target_params": 0.5}
    return {
        "demo": demo,
        **{f"resnet20 {name}": by_recipe(name) for name in bundled()},
        "resnet20 smallest, 1/20": lambda: resnet20("smallest", target_bytes="1/20"),
        "resnet20 routed": lambda: resnet20("shared-basis", "routing=omni", **half),
        "resnet20 coded int8": lambda: resnet20("shared-cp", "codec=int8", **half),
        "resnet20 shrunk": shrunk,
    }


def _digits() -> kdna.Conversion:
    recipe = load_recipe("shared-cp", ["calibration.images=800", "calibration.heldout=400"])
    return kdna.convert(DIGITS, recipe=recipe, checkpoint=WEIGHTS, data=_digits_images(), target_params=0.25)


def _digits_images() -> torch.Tensor:
    from kdna_convert.inputs.digits import digits

    return digits("train")[0]


def record(make: Callable[[], kdna.Conversion]) -> dict[str, str]:
    """The digests of what a case makes, or the code of the error that refuses it."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return digests(kdna.save(make(), Path(scratch) / "folder"))
        except kdna.KdnaError as error:
            return {"refused": error.code}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", help="the cases whose name contains this")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    parser.add_argument("--check", type=Path, help="compare with this record; exit 1 where it differs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    earlier = json.loads(arguments.check.read_text()) if arguments.check else {}
    computed, differing = {}, []
    for name, make in cases(arguments.checkpoint, arguments.data).items():
        if arguments.only and arguments.only not in name:
            continue
        computed[name] = record(make)
        same = name in earlier and computed[name] == earlier[name]
        differing += [name] if earlier and not same else []
        verdict = "" if not earlier else "same" if same else "DIFFERS"
        print(f"{name:40} {len(computed[name]):4} digests {computed[name].get('refused', '')} {verdict}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(computed, indent=1) + "\n")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
