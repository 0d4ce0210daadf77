"""Megabytes of float32 weights that one thread decodes a second, of nets coded by `entropy`.

    python benchmarks/decoding.py FOLDER torchvision:resnet18

A coded folder as it is; of a net's name, random weights rounded at `--step` of each tensor's standard deviation: 1.2 is
about two bits per weight. `encode` is the way there, without the search for a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from kdna_convert.codecs.quantization_steps import nearest_step
from kdna_convert.inputs.models.building import build
from kdna_convert.inputs.models.names import parse_name
from kdna_convert.network.batch_norm import foldable_norms
from kdna_convert.network.folder import open_folder
from kdna_convert.network.packed import pack, steps_of, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="+", metavar="FOLDER_OR_MODEL")
    parser.add_argument("--step", type=float, default=1.2)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.nets:
        net, blob = _coded(name, args.step)
        steps = steps_of(blob)
        size = sum(tensor.numel() * tensor.element_size() for tensor in unpack(blob).values())
        decode = size / 1e6 / _seconds(partial(unpack, blob), args.repeat)
        encode = size / 1e6 / _seconds(partial(pack, net, "entropy", steps), args.repeat)
        print(f"{name:28} {size:12,} in {len(blob):10,} bytes   decode {decode:6.1f}   encode {encode:6.1f} MB/s")


def _coded(name: str, step: float) -> tuple[nn.Module, bytes]:
    if Path(name).is_dir():
        conversion = open_folder(name)
        if conversion.coded is None:
            raise SystemExit(f"{name} is not coded; kdna code writes a folder that is")
        return conversion.model, conversion.coded
    torch.manual_seed(0)
    net = build(parse_name(name), pretrained=False).eval()
    return net, pack(net, "entropy", _steps(net, step))


def _steps(net: nn.Module, step: float) -> Mapping[str, int]:
    weights = {name: tensor.detach() for name, tensor in net.named_parameters() if tensor.ndim > 1}
    of_weights = {name: nearest_step(step * float(tensor.std())) for name, tensor in weights.items()}
    return of_weights | dict.fromkeys(foldable_norms(net), nearest_step(0.05))


def _seconds(run: Callable[[], object], repeat: int) -> float:
    """The median of processor time: what other programs take of the core is not counted."""
    times = []
    for _ in range(repeat):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
