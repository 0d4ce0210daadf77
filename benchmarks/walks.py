"""What a walk through two nets costs: seconds beside those of the plain forward passes, and how often a layer runs.

    python benchmarks/walks.py
    python benchmarks/walks.py --nets timm:densenet121 --size 64 --images 64

The nets have random weights. Nothing is fitted at the stops.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter

import torch
from torch import Tensor, nn

from kdna_convert.inputs.models import load_model
from kdna_convert.network.inference import evaluating
from kdna_convert.network.trace import run_layers, trace
from kdna_convert.network.walk import in_order, walk

NETS = ("timm:resnet18", "timm:densenet121", "torchvision:googlenet(init_weights=False,aux_logits=False)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--images", type=int, default=32)
    args = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(args.images, 3, args.size, args.size)
    print(f"{torch.get_num_threads()} threads, {args.images} images of {args.size} pixels\n")
    print("| net | layers | forward passes of both, s | walk, s | runs of a layer per image, most |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in args.nets:
        print(_row(name, images))


def _row(name: str, images: Tensor) -> str:
    net = load_model(name, pretrained=False).model.eval()
    other = copy.deepcopy(net)
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    layers, batches = in_order(run_layers(net, trace(net, images[:1]), names)), list(images.split(8))
    began = time.perf_counter()
    for model in (net, other):
        with evaluating(model):
            for batch in batches:
                model(batch)
    plain = time.perf_counter() - began
    runs: Counter[str] = Counter()
    for layer in layers:
        module = other.get_submodule(layer.name)
        module.register_forward_hook(lambda _, args, output, name=layer.name: runs.update({name: len(output)}))
    began = time.perf_counter()
    stops = sum(1 for _ in walk(net, other, layers, batches))
    spent = time.perf_counter() - began
    return f"| {name} | {stops} | {plain:.1f} | {spent:.1f} | {max(runs.values()) / len(images):.1f} |"


if __name__ == "__main__":
    main()
