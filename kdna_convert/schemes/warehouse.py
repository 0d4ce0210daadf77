"""Warehouse: kernels are cut along their inputs into cells, and each cell is a mixing of one shared bank of cells.

    W[o,(b,c),s] ~ sum_q U[o,b,q] E[q,c,s]          E (r x cell x taps) shared; U (out x in/cell x r) the adapter

KernelWarehouse (Li et al., ICML 2024, arXiv 2406.07879) as storage: its cells and its warehouse, with a fixed mixing
that is not computed from the input. `cell` is the number of input channels that a cell spans, or their greatest common
divisor. Kernels of any width share if that and the taps agree, so one warehouse can serve several stages of a net. The
shared basis is the case of one cell per filter.
Parameters: r cell taps + r sum(out in / cell). Folded, a member is an ordinary convolution. Factored (a grouped
convolution by E, then 1x1), it takes r (in taps + out in / cell) multiply-adds per position.
Loses to shared CP everywhere, and to whole filters wherever a family can pay for them: each block of a filter is mixed
by itself, so what its blocks have in common is stored once per block. For nets with few layers of any one width. Cells
that are mixed of a few of many (k-means, sparse coding) are no better: docs/explanation/schemes.md.

Fit: E starts from the singular vectors of all cells. Then variable projection over E, with U in closed form
(projection.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..core.linalg import Kronecker, Moment, Target
from ..core.specs import Layout, Shape, SymbolicShape, product
from .basis import leading_rows
from .dense_limit import dense_limit
from .projection import mixing, search
from .scheme import Scheme, Tensors


@dataclass(frozen=True)
class Warehouse(Scheme):
    """Options: `rank`, the number of cells in the bank; `cell`, the input channels that a cell spans."""

    rank: int = 0
    cell: Annotated[int, Field(ge=1)] = 16

    name: ClassVar[str] = "warehouse"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return self._cell(shape), product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            return {"U": (shape[0], self._blocks(shape), "rank")}

        return Layout({"E": ("rank", self._cell(shapes[0]) * product(shapes[0][2:]))}, tuple(map(adapter, shapes)))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return self.rank * (product(shape[1:]) + shape[0] * self._blocks(shape)) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        def rows(point: Sequence[Tensor], member: int) -> Tensor:
            return _side_by_side(point[0], self._blocks(targets[member].shape))

        start_rc = leading_rows([cells_of(target, self._blocks(target.shape)) for target in targets], self.rank)
        shared = {"E": search(rows, [start_rc], targets, sweeps)[0]}
        return shared, [self.fit(shared, {}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares, all blocks of a filter together."""
        blocks = self._blocks(target.shape)
        return {"U": mixing(_side_by_side(shared["E"], blocks), target).view(-1, blocks, self.rank)}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (adapter["U"] @ shared["E"]).reshape(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        blocks, ones = self._blocks(shape), (1,) * len(shape[2:])
        bank = shared["E"].repeat(blocks, 1).view(-1, shape[1] // blocks, *shape[2:])
        return [bank, adapter["U"].reshape(shape[0], -1, *ones)]

    def _cell(self, shape: Shape) -> int:
        """The input channels of a cell: all of them in a linear layer, which cannot run in groups."""
        return gcd(shape[1], self.cell) if len(shape) > 2 else shape[1]

    def _blocks(self, shape: Shape) -> int:
        return shape[1] // self._cell(shape)


def _side_by_side(bank_rc: Tensor, blocks: int) -> Tensor:
    """The rows that a filter of several blocks mixes, ((block, q), n): the bank once per block, zero elsewhere."""
    rows_rn: Tensor = torch.block_diag(*[bank_rc] * blocks)
    return rows_rn


def cells_of(target: Target, blocks: int) -> Target:
    """The cells of a target as kernels of their own, under the mean moment of the blocks."""
    cells_xc = target.kernel_on.view(len(target.kernel_on) * blocks, -1)
    return replace(target, kernel_on=cells_xc, moment=_mean_block(target.moment, blocks))


def _mean_block(moment: Moment, blocks: int) -> Moment:
    """The mean of the blocks on the diagonal."""
    if isinstance(moment, Kronecker):
        return Kronecker(_diagonal_mean(moment.channels_cc, blocks), moment.taps_tt)
    return _diagonal_mean(moment, blocks)


def _diagonal_mean(matrix: Tensor, blocks: int) -> Tensor:
    size = len(matrix) // blocks
    return torch.einsum("bxby->xy", matrix.view(blocks, size, blocks, size)) / blocks
