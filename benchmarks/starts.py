"""Whether shared CP gains by another start, or by other coordinates to search in: hardly (docs/decisions/0002).

    python benchmarks/starts.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors --data IMAGES --keep 0.25

Takes the family that stores most and prints the relative weighted error after 20, 40, 80 and 150 iterations of L-BFGS,
and the seconds of processor time by then, a Kronecker search before the start included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from families import largest, parser
from torch import Tensor

from kdna_convert.core.linalg import (
    Kronecker,
    Target,
    kronecker,
    mean_diagonal,
    minimize,
    single,
    times,
    weighted_energy,
)
from kdna_convert.core.specs import product
from kdna_convert.schemes.cp import _start, search_error

Point = list[Tensor]
MARKS = (20, 40, 80, 150)


def descend(start: Point, aims: Sequence[Target], bases: Sequence[Tensor], steps: int) -> tuple[Point, float]:
    """L-BFGS in the coordinates x of p = x basis, one basis a tensor of the point; where it ends, and its error."""
    scale, singles = 1 / weighted_energy(aims), [single(aim) for aim in aims]

    def error(place: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        value, slopes = search_error([x @ basis for x, basis in zip(place, bases, strict=True)], singles, scale)
        return value, [slope @ basis.T for slope, basis in zip(slopes, bases, strict=True)]

    begin = [torch.linalg.solve(basis, p, left=False) for p, basis in zip(start, bases, strict=True)]
    solved = minimize(error, begin, steps)
    return [x @ basis for x, basis in zip(solved, bases, strict=True)], error(solved)[0]


def plain(aims: Sequence[Target]) -> list[Tensor]:
    taps = product(aims[0].shape[2:])
    return [torch.eye(aims[0].shape[1]).double(), *[torch.eye(taps).double()] * len(aims)]


def metric(aims: Sequence[Target], power: float) -> list[Tensor]:
    """The family's mean moment of channels, and each member's of taps, to this power: -1/2 whitens the inputs."""
    parts = [kronecker(aim.moment, aim.shape[1]) for aim in aims]
    mean_cc = torch.stack([part.channels_cc / mean_diagonal(part) for part in parts]).mean(0)
    directions = []
    for matrix in (mean_cc, *(part.taps_tt for part in parts)):
        values, vectors = torch.linalg.eigh(matrix)
        directions.append((vectors * values**power) @ vectors.T)
    return directions


def of_singular_vectors(aims: Sequence[Target], rank: int, noise: float) -> Point:
    """The leading channel directions within each leading spatial pattern, the same for all members, and noise."""
    generator = torch.Generator().manual_seed(0)
    slices = [aim.weight**0.5 * aim.kernel_on.view(*aim.shape[:2], -1) for aim in aims]
    patterns = torch.linalg.eigh(torch.stack([torch.einsum("ois,oit->st", x, x) for x in slices]).sum(0))[1]
    starts = []
    for pattern in patterns.T:
        _, values, rows = torch.linalg.svd(torch.cat([x @ pattern for x in slices]), full_matrices=False)
        starts += [(float(value), row, pattern) for value, row in zip(values, rows, strict=True)]
    leading = sorted(starts, key=lambda one: -one[0])[:rank]
    rows = [torch.stack([one[1] for one in leading]), *[torch.stack([one[2] for one in leading])] * len(aims)]
    return [x + noise * torch.randn(x.shape, generator=generator).double() / x.shape[1] ** 0.5 for x in rows]


def separated(aim: Target) -> Target:
    moment: Kronecker = kronecker(aim.moment, aim.shape[1])
    return replace(aim, moment=moment, cross_on=times(aim.kernel_on, moment))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--keep", type=float, default=0.25)
    args = options.parse_args()
    _, aims = largest(args)
    whole = sum(product(aim.shape) for aim in aims)
    rank = int(args.keep * whole / (aims[0].shape[1] + sum(aim.shape[0] + product(aim.shape[2:]) for aim in aims)))
    ways = {
        "random, seed 0": (lambda: _start(aims, rank, 0), plain(aims)),
        "random, seed 1": (lambda: _start(aims, rank, 1), plain(aims)),
        "singular vectors, noise 0.1": (lambda: of_singular_vectors(aims, rank, 0.1), plain(aims)),
        "singular vectors, noise 0.5": (lambda: of_singular_vectors(aims, rank, 0.5), plain(aims)),
        "40 Kronecker iterations first": (
            lambda: descend(_start(aims, rank, 0), [*map(separated, aims)], plain(aims), 40)[0],
            plain(aims),
        ),
        "whitened coordinates": (lambda: _start(aims, rank, 0), metric(aims, -0.5)),
        "coordinates colored by C^1/4": (lambda: _start(aims, rank, 0), metric(aims, 0.25)),
    }
    print(f"{len(aims)} layers, rank {rank}")
    print("| start |", " | ".join(map(str, MARKS)), "|\n| --- |", " | ".join("---:" for _ in MARKS), "|")
    for name, (start, bases) in ways.items():
        cells = []
        for steps in MARKS:
            began = time.process_time()
            error = descend(start(), aims, bases, steps)[1]
            cells.append(f"{error:.4f} ({time.process_time() - began:.1f} s)")
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
