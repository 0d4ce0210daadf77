"""Separable: shared CP whose spatial kernels are products of one vector per axis.

    W[o,i,x,y] ~ sum_q U[o,q] V[q,i] b0[q,x] b1[q,y]          V (r x in) shared; b0, b1 and U the member's adapter

Spatially separable filters (Rigamonti et al. 2013; Jaderberg et al. 2014, arXiv 1405.3866) over a bank that the family
shares. An axis of one tap has no vector.
Parameters: r in + r sum(out + kh + kw). Folded, a member is an ordinary convolution. Factored (1x1, depthwise, 1x1), it
takes the multiply-adds of shared CP, r (in + kh kw + out) per position.
At 3x3 it equals shared CP, to 7 % of the error either way (docs/explanation/schemes.md): the three numbers that it
saves per rank make up for kernels that are not separable. Larger taps save more (7x7: 14 numbers instead of 49). Loses
where shared CP does, by as much.

Fit: variable projection over V and the vectors, from cp's own start and random vectors (projection.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.linalg import Target
from ..core.specs import Layout, Shape, SymbolicShape, product
from .cp import bank_start
from .dense_limit import dense_limit
from .projection import mixing, search
from .scheme import CuttableScheme, Tensors


@dataclass(frozen=True)
class Separable(CuttableScheme):
    """Options: `rank`, the number of rows of the shared bank."""

    rank: int = 0

    name: ClassVar[str] = "separable"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[1], product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            return {"U": (shape[0], "rank")} | {letter: ("rank", taps) for letter, taps in _axes(shape).items()}

        return Layout({"V": ("rank", shapes[0][1])}, tuple(map(adapter, shapes)))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        taps = product(shape[2:])
        spatial, pointwise_in = (taps, in_positions) if taps > 1 else (0, out_positions)
        return self.rank * (shape[1] * pointwise_in + (spatial + shape[0]) * out_positions)

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        generator = torch.Generator().manual_seed(seed)
        bank_ri = bank_start(targets, self.rank, generator)

        def vector(taps: int) -> Tensor:
            drawn_rt = torch.randn(self.rank, taps, generator=generator, dtype=torch.float64)
            norm_r1: Tensor = drawn_rt.norm(dim=1, keepdim=True)
            return drawn_rt / norm_r1

        adapters = [{letter: vector(taps) for letter, taps in _axes(target.shape).items()} for target in targets]
        return self.refine({"V": bank_ri}, adapters, targets, sweeps)

    def refine(
        self, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target], sweeps: int
    ) -> tuple[Tensors, list[Tensors]]:
        start, places = [shared["V"]], []
        for adapter, target in zip(adapters, targets, strict=True):
            places.append({letter: len(start) + place for place, letter in enumerate(_axes(target.shape))})
            start += [adapter[letter] for letter in _axes(target.shape)]

        def own(point: Sequence[Tensor], member: int) -> Tensors:
            return {letter: point[place] for letter, place in places[member].items()}

        def rows(point: Sequence[Tensor], member: int) -> Tensor:
            return _rows(point[0], own(point, member), targets[member].shape)

        solution = search(rows, start, targets, sweeps)
        shared = {"V": solution[0]}
        return shared, [self.fit(shared, own(solution, member), target) for member, target in enumerate(targets)]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares on the member's rows."""
        return {**adapter, "U": mixing(self.rows(shared, adapter, target.shape), target)}

    def rows(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return _rows(shared["V"], adapter, shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        """The vectors are one depthwise kernel, since a chain of one per axis would need its own paddings."""
        ones = (1,) * len(shape[2:])
        chain = [tensor.view(*tensor.shape, *ones) for tensor in (shared["V"], adapter["U"])]
        spatial = _spatial(shared["V"], adapter, shape).view(-1, 1, *shape[2:])
        return [chain[0], spatial, chain[1]] if _axes(shape) else chain


def _axes(shape: Shape) -> dict[str, int]:
    """The lengths of a kernel's vectors by their letters, one for each axis of several taps."""
    return {f"b{axis}": taps for axis, taps in enumerate(shape[2:]) if taps > 1}


def _spatial(bank_ri: Tensor, adapter: Tensors, shape: Shape) -> Tensor:
    """The products of each rank's vectors, (rank, taps)."""
    spatial_rs = bank_ri.new_ones(len(bank_ri), 1)
    for letter in _axes(shape):
        spatial_rs = (spatial_rs[:, :, None] * adapter[letter][:, None, :]).flatten(1)
    return spatial_rs


def _rows(bank_ri: Tensor, adapter: Tensors, shape: Shape) -> Tensor:
    return (bank_ri[:, :, None] * _spatial(bank_ri, adapter, shape)[:, None, :]).flatten(1)
