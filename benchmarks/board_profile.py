"""Measure this machine as a device profile: nanoseconds per multiply-add by kind of layer, torch, one thread.

    python benchmarks/board_profile.py my-machine > my-machine.yaml      # ten seconds
    kdna plan MODEL --board my-machine.yaml --max-latency 5ms

The clock of the profile is 1 GHz, so that its cycles are nanoseconds. A convolution is timed with the normalization and
activation behind it, which torch runs by themselves. Each figure is the median over shapes of the fastest of many runs,
which excludes what other programs take. `kdna plan --target-latency` measures a net's own layers instead; a profile is
for comparisons with other devices.
"""

import argparse
import time
from statistics import median

import torch
from torch import Tensor, nn

from kdna_convert.core.machine import cpu_name

RUNS = 60
# By kind: layers, and the size of the input behind the batch of one.
SIDES = ((64, 56), (128, 28), (256, 14), (512, 7))
LAYERS: dict[str, list[tuple[nn.Module, tuple[int, ...]]]] = {
    "convolution": [(nn.Conv2d(c, c, 3, padding=1), (c, side, side)) for c, side in SIDES],
    "depthwise": [(nn.Conv2d(c, c, 3, padding=1, groups=c), (c, side, side)) for c, side in SIDES],
    "pointwise": [(nn.Conv2d(c, c, 1), (c, side, side)) for c, side in SIDES],
    "linear": [(nn.Linear(c, c), (c,)) for c in (512, 1024)],
}


def nanoseconds(layer: nn.Module, x: Tensor) -> float:
    """The fastest of many runs, with what follows a convolution."""
    if isinstance(layer, nn.Conv2d):
        layer = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()).eval()
    times = []
    with torch.inference_mode():
        for _ in range(RUNS):
            began = time.perf_counter_ns()
            layer(x)
            times.append(time.perf_counter_ns() - began)
    return float(min(times))


def macs(layer: nn.Module, size: tuple[int, ...]) -> int:
    """Multiply-adds of one image; the convolutions keep the sides of their input."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    positions = 1 if len(size) == 1 else size[1] * size[2]
    return weight.numel() * positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the profile: small letters, digits and hyphens")
    name = parser.parse_args().name
    torch.set_num_threads(1)
    torch.manual_seed(0)
    overhead = nanoseconds(nn.Conv2d(8, 8, 1), torch.randn(1, 8, 1, 1))
    source = f"benchmarks/board_profile.py, torch {torch.__version__}, one thread, {cpu_name()}"
    lines = [f"name: {name}", f"summary: {cpu_name()}, one thread of torch", "estimate: true"]
    lines += ['clock: {value: 1e9, source: "a unit: the cycles below are nanoseconds"}', "fp32:"]
    for kind, layers in LAYERS.items():
        each = [max(nanoseconds(own, torch.randn(1, *size)) - overhead, 1) / macs(own, size) for own, size in layers]
        lines.append(f'  {kind}: {{value: {median(each):.4g}, source: "{source}"}}')
    lines.append(f'  layer: {{value: {overhead:.0f}, source: "the same: a layer of 64 multiply-adds"}}')
    print("\n".join(lines))


if __name__ == "__main__":
    main()
