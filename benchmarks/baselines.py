"""What each checkpoint must score: a figure of a net that is fed otherwise than it was trained says nothing.

    python benchmarks/baselines.py DATA [NAME ...]

Evaluates every checkpoint under DATA/checkpoints that the table has, or those named, and exits with 1 if one scores
otherwise. `require_baseline` is the same check for one net, with the input settings that a benchmark gives it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdna_convert as kdna

TOLERANCE = 0.35  # points: another decoder or order of sums changes a few of 1,000 images
RIGHT_INPUTS = {  # by the name of the option
    "imagenet_mobilenetv1_075": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"},
    "imagenet_mobilenetv2_100": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"},
}


@dataclass(frozen=True)
class Baseline:
    """A checkpoint's net, the images that it is measured on, below DATA, and its top-1 on them in %."""

    model: str
    images: str
    top1: float


BASELINES = {
    "cifar10_resnet20": Baseline("examples/cifar_resnet.py:resnet20", "cifar10/test", 91.90),
    "cifar10_resnet32": Baseline("examples/cifar_resnet.py:resnet32", "cifar10/test", 92.64),
    "cifar10_resnet56": Baseline("examples/cifar_resnet.py:resnet56", "cifar10/test", 93.30),
    "imagenet_squeezenet1_1": Baseline("torchvision:squeezenet1_1", "imagenet/eval", 57.7),
    "imagenet_mobilenetv1_075": Baseline(
        "timm.models.efficientnet:_gen_mobilenet_v1('mobilenetv1_100', 0.75, pad_type='same', bn_eps=1e-3)",
        "imagenet/eval",
        73.8,
    ),
    "imagenet_mobilenetv2_100": Baseline("timm:mobilenetv2_100(pad_type='same')", "imagenet/eval", 78.5),
    "imagenet_resnet18": Baseline("torchvision:resnet18", "imagenet/eval", 68.8),
}


def require_baseline(
    model: str, checkpoint: str | Path | None, inputs: Mapping[str, Any] | None = None, device: str = "auto"
) -> None:
    """End the program with a message if the net, fed with these inputs, scores otherwise than its checkpoint must.

    Args:
        model: the name of the net.
        checkpoint: its weights, DATA/checkpoints/NAME.safetensors. Without them, or without a baseline of that name,
            there is nothing to check; the latter is said on stderr.
        inputs: the settings of the input that the benchmark gives: mean, std, interpolation.
        device: where the net runs.
    """
    if checkpoint is None:
        return
    name, data = Path(checkpoint).stem, Path(checkpoint).parent.parent
    if name not in BASELINES:
        print(
            f"{name} has no baseline in benchmarks/baselines.py: nothing says that it is fed as trained",
            file=sys.stderr,
        )
        return
    wrong = fault(name, measured(name, data, model, checkpoint, inputs, device))
    if wrong is not None:
        raise SystemExit(wrong)


def measured(
    name: str, data: Path, model: str, checkpoint: str | Path, inputs: Mapping[str, Any] | None, device: str = "auto"
) -> float:
    """Top-1 in % on the images of the baseline."""
    images = BASELINES[name].images
    result = kdna.evaluate(
        model,
        data=data / images,
        checkpoint=str(checkpoint),
        inputs=inputs,
        class_map=class_map(data, images),
        device=device,
    )
    if result.top1 is None:
        raise SystemExit(f"{data / images} has no labels; the baseline of {name} needs them")
    return 100 * result.top1


def fault(name: str, top1: float) -> str | None:
    """What is wrong with a net that scores `top1` %, and the way out; None if it scores as it must."""
    asked = BASELINES[name]
    if abs(top1 - asked.top1) <= TOLERANCE:
        return None
    return (
        f"{name} scores {top1:.2f} instead of {asked.top1:.2f}: it is not fed as it was trained; "
        f"use {shlex.join([asked.model, *input_flags(name)])}"
    )


def input_flags(name: str) -> list[str]:
    """The settings of the checkpoint's input as options of kdna; none where those of the net are right."""
    given = RIGHT_INPUTS.get(name, {})
    values = {key: value if isinstance(value, str) else ",".join(map(str, value)) for key, value in given.items()}
    return [part for key, value in values.items() for part in (f"--{key}", value)]


def net_flags(name: str, data: Path) -> list[str]:
    """MODEL and the options that load the checkpoint and feed it rightly, for any command of kdna."""
    checkpoint = data / "checkpoints" / f"{name}.safetensors"
    return [BASELINES[name].model, "--checkpoint", str(checkpoint), *input_flags(name)]


def class_map(data: Path, images: str) -> Path | None:
    """The names of ImageNet's classes in the order of the outputs; CIFAR-10's folders are in that order."""
    return data / "imagenet" / "class_map.txt" if images.startswith("imagenet") else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BASELINES)}")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(BASELINES):
        parser.error(f"no baseline for {', '.join(sorted(unknown))}; there are {', '.join(BASELINES)}")
    wrong = 0
    for name in given.names or BASELINES:
        checkpoint = given.data / "checkpoints" / f"{name}.safetensors"
        if not checkpoint.exists():
            print(f"{name:26} skipped: {checkpoint} does not exist", flush=True)
            continue
        top1 = measured(name, given.data, BASELINES[name].model, checkpoint, RIGHT_INPUTS.get(name))
        message = fault(name, top1)
        wrong += message is not None
        print(f"{name:26} {top1:6.2f}  {message or 'ok'}", flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
