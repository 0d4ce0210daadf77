"""Codebook: every cell of a kernel is a gain times one of the family's bank of cells.

    W[o,(b,c),s] ~ U[o,b] E[K[o,b],c,s]          E (r x cell x taps) shared; U and K (out x in/cell) the adapter

KernelWarehouse's cells (Li et al., ICML 2024), each mixed of a single one: gain-shape vector quantisation (Sabin and
Gray 1984) of kernels, signs in the gains. K holds int16 indices, each counted as one parameter. `cell` is
how many input channels a cell spans, or their greatest common divisor: 1, the default, makes a 3x3 kernel a gain and
an index. Kernels of any width share where that and the taps agree: one bank serves all 3x3 layers of a net.
Parameters: r cell taps + 2 sum(out in / cell): at 3x3 never less than 2/9 of the dense ones. There and up to about a
third it leaves half of shared CP's error or less (docs/schemes.md).
Loses below, where it does not reach; at 1x1, where a cell of one channel is one number; and where multiply-adds count,
as it has no factored form. A fine-tune moves E and U, never K.

Fit: k-means of the directions of all cells under their mean moment; then E and U descend together by L-BFGS on the
exact error with K held, and U is solved again in closed form, all gains of a filter together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..errors import NumericsError
from ..linalg import (
    JITTER,
    TINY,
    Kronecker,
    Moment,
    Target,
    dense,
    mean_diagonal,
    minimise,
    searchable,
    times,
    weighted_energy,
)
from ..specs import Layout, Shape, SymbolicShape, product
from .warehouse import cells_of

Tensors = dict[str, Tensor]
# Codes of a bank, far below what an int16 can tell apart: k-means takes cells x codes multiply-adds a round.
MOST = 2**13
ROUNDS = 8
# Numbers that a step over many cells or filters may hold at once.
CHUNK = 2**23


@dataclass(frozen=True)
class Codebook:
    """Options: `rank`, the number of cells in the bank; `cell`, the input channels that a cell spans."""

    rank: int = 0
    cell: Annotated[int, Field(ge=1)] = 1

    name: ClassVar[str] = "codebook"
    size: ClassVar[str] = "rank"
    smallest: ClassVar[int] = 1
    shares: ClassVar[bool] = True

    def group(self, shape: Shape) -> Hashable:
        return gcd(shape[1], self.cell), product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The number of codes at which the family stores as much as its dense kernels, or the most that can be told."""
        cells = sum(shape[0] * self._blocks(shape) for shape in shapes)
        return min(max(1, (sum(map(product, shapes)) - 2 * cells) // self._length(shapes[0])), MOST)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            cells = shape[0], self._blocks(shape)
            return {"U": cells, "K": cells}

        return Layout({"E": ("rank", self._length(shapes[0]))}, tuple(map(adapter, shapes)), indices=("K",))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return product(shape) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        searched = [searchable(target) for target in targets]
        bank_rc, codes = _k_means(searched, [self._blocks(target.shape) for target in targets], self.rank, seed)
        gains = [self.fit({"E": bank_rc}, {"K": code}, t)["U"] for code, t in zip(codes, searched, strict=True)]
        scale = 1 / weighted_energy(searched)

        def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
            bank, *gain = point
            value, slope_rc, slopes = 0.0, torch.zeros_like(bank), []
            for gain_ob, code_ob, target in zip(gain, codes, searched, strict=True):
                cells_obc, part = bank[code_ob], scale * target.weight
                kernel_on = (gain_ob[:, :, None] * cells_obc).flatten(1)
                seen_on = times(kernel_on, target.moment)
                value += part * float(((seen_on - 2 * target.cross_on) * kernel_on).sum())
                slope_obc = 2 * part * (seen_on - target.cross_on).view_as(cells_obc)
                slope_rc.index_add_(0, code_ob.flatten(), (gain_ob[:, :, None] * slope_obc).flatten(0, 1))
                slopes.append((slope_obc * cells_obc).sum(2))
            return value, [slope_rc, *slopes]

        bank_rc, *_ = minimise(error, [bank_rc, *gains], sweeps)
        shared = {"E": bank_rc}
        return shared, [
            self.fit(shared, {"K": code.to(torch.int16)}, t) for code, t in zip(codes, targets, strict=True)
        ]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares, all gains of a filter together; the indices stay."""
        cells_obc = shared["E"][adapter["K"].long()]
        many = max(1, CHUNK // max(1, cells_obc.shape[1] * target.kernel_on.shape[1]))
        parts = zip(cells_obc.split(many), target.cross_on.split(many), strict=True)
        return {"U": torch.cat([_gains(cells, cross, target.moment) for cells, cross in parts]), "K": adapter["K"]}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (adapter["U"][:, :, None] * shared["E"][adapter["K"].long()]).reshape(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return None

    def _length(self, shape: Shape) -> int:
        """Numbers in a cell."""
        return gcd(shape[1], self.cell) * product(shape[2:])

    def _blocks(self, shape: Shape) -> int:
        return shape[1] // gcd(shape[1], self.cell)


def _gains(cells_obc: Tensor, cross_on: Tensor, moment: Moment) -> Tensor:
    """(out x blocks): the least-squares gains of these cells. Raises NumericsError KD703."""
    out, blocks, length = cells_obc.shape
    if isinstance(moment, Kronecker):
        shaped = cells_obc.view(out, blocks, -1, len(moment.taps_tt))
        channels_bcj = moment.channels_cc.view(blocks, -1, len(moment.channels_cc))
        seen_obn = torch.einsum("obct,bcj,tu->obju", shaped, channels_bcj, moment.taps_tt)
    else:
        seen_obn = torch.einsum("obx,bxn->obn", cells_obc, moment.view(blocks, length, -1))
    normal_obp = torch.einsum("obpx,opx->obp", seen_obn.reshape(out, blocks, blocks, length), cells_obc)
    mean_o11 = normal_obp.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    eye_bb = torch.eye(blocks, dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(normal_obp + (JITTER * mean_o11 + TINY) * eye_bb)
    if failed.any():
        raise NumericsError("KD703", "a least-squares fit is singular; lower the rank or calibrate on more images")
    pull_ob = (cross_on.view_as(cells_obc) * cells_obc).sum(2)
    return torch.cholesky_solve(pull_ob[:, :, None], factor)[:, :, 0]


def _k_means(targets: Sequence[Target], blocks: Sequence[int], rank: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """A bank of cells and each member's indices into it: k-means of lines through the origin, under the mean moment."""
    parts = [cells_of(target, count) for target, count in zip(targets, blocks, strict=True)]
    metric_cc = torch.stack([dense(part.moment) / mean_diagonal(part.moment) for part in parts]).mean(0)
    values, vectors = torch.linalg.eigh(metric_cc)
    root = values.clamp_min(values.max() * 1e-9).sqrt()
    weighted = [part.kernel_on * (part.weight * mean_diagonal(part.moment)) ** 0.5 for part in parts]
    cells_xc = torch.cat(weighted) @ (vectors * root)
    order = torch.randperm(len(cells_xc), generator=torch.Generator().manual_seed(seed))
    bank_rc = _unit(cells_xc[order[torch.arange(rank) % len(order)]])
    for _ in range(ROUNDS):
        code_x, gain_x = _nearest(cells_xc, bank_rc)
        pulled = torch.zeros_like(bank_rc).index_add_(0, code_x, gain_x[:, None] * cells_xc)
        bank_rc = torch.where(pulled.norm(dim=1, keepdim=True) > 0, _unit(pulled), bank_rc)
    code_x, _ = _nearest(cells_xc, bank_rc)
    sizes = [len(part.kernel_on) for part in parts]
    codes = [code.view(-1, count) for code, count in zip(code_x.split(sizes), blocks, strict=True)]
    return _unit((bank_rc / root) @ vectors.T), codes


def _nearest(cells_xc: Tensor, bank_rc: Tensor) -> tuple[Tensor, Tensor]:
    """The unit row that each cell projects on most, and the gain, signed."""
    chunks, bank_cr = cells_xc.float().split(max(1, CHUNK // len(bank_rc))), bank_rc.float().T
    code_x = torch.cat([(chunk @ bank_cr).abs().argmax(1) for chunk in chunks])
    return code_x, (cells_xc * bank_rc[code_x]).sum(1)


def _unit(rows: Tensor) -> Tensor:
    norm_r1: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norm_r1.clamp_min(1e-300)
