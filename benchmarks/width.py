"""How the fit's time grows with width: seconds of one L-BFGS step on three 3x3 layers, at half their parameters.

    python benchmarks/width.py

Random kernels and moments; both metrics where the full one is bearable. Figures in benchmarks/README.md.
"""

from __future__ import annotations

import statistics
import time

import torch

from kdna_convert.core.linalg import kronecker, plain_target, single
from kdna_convert.schemes.cp import Cp, _start, search_error


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    print("| channels | patch | rank | full metric, s | Kronecker, s |\n| ---: | ---: | ---: | ---: | ---: |")
    for channels in (64, 128, 256, 512):
        kernel = torch.randn(channels, channels, 3, 3, generator=generator)
        patches = torch.randn(2 * channels * 9, channels * 9, generator=generator)
        moment = patches.T @ patches / len(patches)
        rank = Cp().limit([tuple(kernel.shape)] * 3) // 2
        times = []
        for second in (moment, kronecker(moment, channels)):
            if isinstance(second, torch.Tensor) and channels > 256:
                times.append("-")
                continue
            aims = [plain_target(kernel, second, 1.0)] * 3
            start, singles = _start(aims, rank, 0), [single(aim) for aim in aims]
            taken = []
            for _ in range(4):
                began = time.perf_counter()
                search_error(start, singles, 1.0)
                taken.append(time.perf_counter() - began)
            times.append(f"{statistics.median(taken[1:]):.3f}")
        print(f"| {channels} | {channels * 9} | {rank} | {times[0]} | {times[1]} |", flush=True)


if __name__ == "__main__":
    main()
