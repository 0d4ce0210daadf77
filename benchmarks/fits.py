"""How fast shared CP can be fitted: variable projection with L-BFGS (ours), alternating least squares, and Adam.

    python benchmarks/fits.py examples/cifar_resnet.py:resnet56 --checkpoint W.safetensors --data IMAGES --rank 150

Takes the family that stores most, fits it from one start with each method, and prints the relative weighted output
error against seconds. The figures are in benchmarks/README.md; the decision is docs/decisions/0002.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from families import largest, parser
from torch import Tensor

from kdna_convert.core.linalg import Target, minimize, mix, single, weighted_energy
from kdna_convert.schemes.cp import _rows, _start, search_error

Point = list[Tensor]


def searched(point: Sequence[Tensor], aims: Sequence[Target]) -> tuple[float, list[Tensor]]:
    """The relative error at the best mixing, 1 for a family of zeros, and its gradients."""
    return search_error(point, [single(aim) for aim in aims], 1 / weighted_energy(aims))


def relative_error(point: Sequence[Tensor], aims: Sequence[Target]) -> float:
    return searched(point, aims)[0]


def variable_projection(start: Point, aims: Sequence[Target], seconds: float) -> Iterator[Point]:
    """L-BFGS on the error with U solved out, restarted each 25 steps so that it can be watched."""
    point = start
    while True:
        point = minimize(lambda place: searched(place, aims), point, 25)
        yield point


def alternating(start: Point, aims: Sequence[Target], seconds: float) -> Iterator[Point]:
    """U in closed form, then b and V each by 15 conjugate-gradient steps on their own normal equations."""
    bank, spatials = start[0], list(start[1:])
    while True:
        mixings = []
        for spatial, aim in zip(spatials, aims, strict=True):
            rows = _rows(bank, spatial)
            mixings.append(mix(rows @ aim.moment @ rows.T, aim.cross_on @ rows.T))
        for place, (mixing, aim) in enumerate(zip(mixings, aims, strict=True)):
            wanted_rs = by_spatial(bank, mixing.T @ aim.cross_on)
            side = partial(spatial_side, bank, mixing.T @ mixing, aim)
            spatials[place] = conjugate_gradient(side, wanted_rs, spatials[place])
        triples = list(zip(spatials, mixings, aims, strict=True))
        pulls = [aim.weight * by_bank(s, mixing.T @ aim.cross_on) for s, mixing, aim in triples]
        bank = conjugate_gradient(partial(bank_side, triples), torch.stack(pulls).sum(0), bank)
        yield [bank, *spatials]


def spatial_side(bank: Tensor, gram: Tensor, aim: Target, spatial: Tensor) -> Tensor:
    return by_spatial(bank, gram @ (_rows(bank, spatial) @ aim.moment))


def bank_side(triples: Sequence[tuple[Tensor, Tensor, Target]], bank: Tensor) -> Tensor:
    scaled = [
        aim.weight * by_bank(spatial, (mixing.T @ mixing) @ (_rows(bank, spatial) @ aim.moment))
        for spatial, mixing, aim in triples
    ]
    return torch.stack(scaled).sum(0)


def by_spatial(bank: Tensor, rows_rn: Tensor) -> Tensor:
    return torch.einsum("ris,ri->rs", rows_rn.view(*bank.shape, -1), bank)


def by_bank(spatial: Tensor, rows_rn: Tensor) -> Tensor:
    return torch.einsum("ris,rs->ri", rows_rn.view(len(spatial), -1, spatial.shape[1]), spatial)


def adam(start: Point, aims: Sequence[Target], seconds: float) -> Iterator[Point]:
    """Adam on V and b with U solved out, at 3 % of their mean size a step, falling to nothing by the end."""
    point = [tensor.clone() for tensor in start]
    rates = [0.03 * float(tensor.abs().mean()) for tensor in point]
    groups = [{"params": [tensor], "lr": rate} for tensor, rate in zip(point, rates, strict=True)]
    optimizer, began = torch.optim.Adam(groups), time.perf_counter()
    while True:
        left = max(0.0, 1 - (time.perf_counter() - began) / seconds)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * left
        for tensor, slope in zip(point, searched(point, aims)[1], strict=True):
            tensor.grad = slope
        optimizer.step()
        yield point


def conjugate_gradient(apply: Callable[[Tensor], Tensor], target: Tensor, x: Tensor, steps: int = 15) -> Tensor:
    """A few steps towards the solution of a symmetric positive system."""
    left = target - apply(x)
    way, size = left.clone(), (left * left).sum()
    for _ in range(steps):
        applied = apply(way)
        step = size / (way * applied).sum()
        x, left = x + step * way, left - step * applied
        size, before = (left * left).sum(), size
        way = left + size / before * way
    return x


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rank", type=int, default=150)
    options.add_argument("--seconds", type=float, default=60)
    args = options.parse_args()
    owner, aims = largest(args)
    start = _start(aims, args.rank, 0)
    print(f"family of {owner}, {len(aims)} layers, rank {args.rank}; start {relative_error(start, aims):.4f}")
    for method in (variable_projection, alternating, adam):
        began, marks = time.perf_counter(), [args.seconds / 4, args.seconds / 2, args.seconds]
        for point in method(start, aims, args.seconds):
            spent = time.perf_counter() - began
            if spent >= marks[0]:
                print(f"{method.__name__:20} {spent:6.1f} s   error {relative_error(point, aims):.5f}", flush=True)
                marks = [mark for mark in marks if mark > spent]
            if not marks:
                break


if __name__ == "__main__":
    main()
