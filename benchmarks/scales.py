"""Where a gate on a convolution's input is cheaper in its kernels, and how these run (routing/convolution.py).

    python benchmarks/scales.py [--threads 2]

32 images, 3x3, no bias; seconds of the median of interleaved rounds, the cache emptied in between, against the
convolution alone: with the input scaled first, with each image's own kernel as one grouped convolution, and with it
as a matrix, times the image's patches.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from kdna_convert.core.heap import keep_freed
from kdna_convert.routing.convolution import by_patches

SIZES = ((16, 32), (32, 16), (64, 8), (64, 56), (128, 28), (256, 14), (512, 7))
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads\n| channels | pixels | kernel / image | input scaled | in the kernels | patches |")
    print(f"|{' --- |' * 6}")
    with torch.inference_mode():
        for channels, side in SIZES:
            plain, scaled, folded, patched = measured(channels, side, given.rounds)
            share = 9 * channels / side**2
            print(
                f"| {channels} | {side} x {side} | {share:.2f} | {scaled / plain:.2f} | {folded / plain:.2f} | "
                f"{patched / plain:.2f} |",
                flush=True,
            )


def measured(channels: int, side: int, rounds: int) -> list[float]:
    """Median seconds: the convolution alone, its input scaled, the scales in its kernels, these by patches."""
    x, weight = torch.randn(BATCH, channels, side, side), torch.randn(channels, channels, 3, 3)
    scale, junk = torch.rand(BATCH, channels, 1, 1), torch.randn(8_000_000)

    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def folded() -> None:
        kernels = (weight[None] * scale.view(BATCH, 1, channels, 1, 1)).flatten(0, 1)
        F.conv2d(x.view(1, -1, side, side), kernels, padding=1, groups=BATCH)

    def patched() -> None:
        by_patches(layer, x, weight[None] * scale.view(BATCH, 1, channels, 1, 1))

    ways = (lambda: F.conv2d(x, weight, padding=1), lambda: F.conv2d(x * scale, weight, padding=1), folded, patched)
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 2):
        for way, times in zip(ways, seconds, strict=True):
            junk.add_(1)
            began = time.perf_counter()
            way()
            times += [time.perf_counter() - began] if number > 1 else []
    return [statistics.median(times) for times in seconds]


if __name__ == "__main__":
    keep_freed()
    main()
