"""Where a gate on a convolution's input is cheaper in its kernels (routing/modulation.py, _in_kernels).

    python benchmarks/scales.py [--threads 2]

32 images, 3x3, no bias; seconds of the median of interleaved rounds, the cache emptied in between, against the
convolution alone: with the input scaled first, and with each image's own kernel as one grouped convolution.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

SIZES = ((16, 32), (32, 16), (64, 8), (64, 56), (128, 28), (256, 14))
BATCH = 32


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked.add_argument("--rounds", type=int, default=15)
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads\n| channels | pixels | kernel / image | input scaled | in the kernels |")
    print(f"|{' --- |' * 5}")
    with torch.inference_mode():
        for channels, side in SIZES:
            plain, scaled, folded = measured(channels, side, given.rounds)
            share = 9 * channels / side**2
            print(
                f"| {channels} | {side} x {side} | {share:.2f} | {scaled / plain:.2f} | {folded / plain:.2f} |",
                flush=True,
            )


def measured(channels: int, side: int, rounds: int) -> tuple[float, float, float]:
    """Median seconds: the convolution alone, with its input scaled, with the scales in its kernels."""
    x, weight = torch.randn(BATCH, channels, side, side), torch.randn(channels, channels, 3, 3)
    scale, junk = torch.rand(BATCH, channels, 1, 1), torch.randn(8_000_000)

    def folded() -> None:
        kernels = (weight[None] * scale.view(BATCH, 1, channels, 1, 1)).flatten(0, 1)
        F.conv2d(x.view(1, -1, side, side), kernels, padding=1, groups=BATCH)

    ways = (lambda: F.conv2d(x, weight, padding=1), lambda: F.conv2d(x * scale, weight, padding=1), folded)
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 2):
        for way, found in zip(ways, seconds, strict=True):
            junk.add_(1)
            began = time.perf_counter()
            way()
            found += [time.perf_counter() - began] if number > 1 else []
    plain, scaled, own = map(statistics.median, seconds)
    return plain, scaled, own


if __name__ == "__main__":
    main()
