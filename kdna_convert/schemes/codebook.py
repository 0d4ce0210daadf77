"""Codebook: every cell of a kernel is a gain times one of the family's bank of cells.

    W[o,(b,c),s] ~ U[o,b] E[K[o,b],c,s]     E (r x cell x taps) shared; K (out x in/cell) and U, as K or (out), its own

KernelWarehouse's cells (Li et al., ICML 2024), each mixed of a single one: vector quantisation of kernels. With
`gain: cell`, gain-shape (Sabin and Gray 1984), signs in the gains; with `gain: filter`, a gain for each filter and
plain codes, which halves what a layer keeps of its own. K holds int16 indices, each counted as one parameter. `cell` is
how many input channels a cell spans, or their greatest common divisor: 1, the default, makes a 3x3 kernel an index;
1x1 layers, where that would be one number, are cut in cells of 2 or 4.
Kernels of any width share where that and the taps agree: one bank serves all 3x3 layers of a net.
Parameters: r cell taps + sum(out in / cell) + the gains: at 3x3 never less than 1/9 of the dense ones, 2/9 with a gain
for each cell. From there up to about a third it leaves a third of shared CP's error or less (docs/schemes.md).
Loses below, where it does not reach, and where multiply-adds count, as it has no factored form. A fine-tune moves E and
U, never K.

Fit: a bank by k-means of all cells; then, twice, the codes with the error of each cell fed forward into the next
(quantising.py), and E and U down the exact error together by L-BFGS; at last U in closed form.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Annotated, ClassVar, Literal

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
    minimise,
    searchable,
    times,
    weighted_energy,
)
from ..specs import Layout, Shape, SymbolicShape, product
from .quantising import codes_of, feed, lines, points
from .sizes import dense_limit

Tensors = dict[str, Tensor]
# Codes of a bank, far below what an int16 can tell apart: k-means takes cells x codes multiply-adds a round.
MOST = 2**13
# Rounds of k-means. Asked for at most SHORT iterations, a fit is a quick one: half the rounds, one pass over the codes.
ROUNDS, SHORT = 8, 30
# Numbers that a step over many filters may hold at once.
CHUNK = 2**23


@dataclass(frozen=True)
class Codebook:
    """Options: `rank`, the number of cells in the bank; `cell`, the input channels that a cell spans; `gain`, what has
    one of its own: every cell, or every filter."""

    rank: int = 0
    cell: Annotated[int, Field(ge=1)] = 1
    gain: Literal["cell", "filter"] = "cell"

    name: ClassVar[str] = "codebook"
    size: ClassVar[str] = "rank"
    smallest: ClassVar[int] = 1
    shares: ClassVar[bool] = True
    tried: ClassVar[tuple[float, ...]] = (0.0, 0.002, 0.01, 0.05, 0.2, 0.9)  # an error falls with a power of the rank

    def group(self, shape: Shape) -> Hashable:
        return gcd(shape[1], self.cell), product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The number of codes at which the family stores as much as its dense kernels, or the most that can be told."""
        return min(dense_limit(self.layout(shapes), shapes), MOST)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            cells = shape[0], self._blocks(shape)
            return {"U": cells if self.gain == "cell" else shape[:1], "K": cells}

        return Layout({"E": ("rank", self._length(shapes[0]))}, tuple(map(adapter, shapes)), indices=("K",))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return product(shape) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        searched = [searchable(target) for target in targets]
        blocks = [self._blocks(target.shape) for target in targets]
        feeds = [feed(target.moment, count) for target, count in zip(searched, blocks, strict=True)]
        rounds = ROUNDS if sweeps > SHORT else ROUNDS // 2
        known: Sequence[Tensor | None] = [None] * len(targets)  # gains that a code is chosen for; else the best for it
        if self.gain == "cell":
            bank_rc = lines(searched, blocks, self.rank, seed, rounds)
        else:
            bank_rc, known = points(searched, blocks, self.rank, seed, rounds)
        for steps in (sweeps // 3, sweeps) if sweeps > SHORT else (sweeps // 4,):
            met = zip(known, searched, feeds, strict=True)
            codes = [codes_of(bank_rc, gain, target.kernel_on, how) for gain, target, how in met]
            solved = [self.fit({"E": bank_rc}, {"K": code}, t)["U"] for code, t in zip(codes, searched, strict=True)]
            bank_rc, solved = _descend(bank_rc, solved, codes, searched, steps)
            known = solved if self.gain == "filter" else known
        shared = {"E": bank_rc}
        return shared, [
            self.fit(shared, {"K": code.to(torch.int16)}, t) for code, t in zip(codes, targets, strict=True)
        ]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares, all gains of a filter together; the indices stay."""
        cells_obc = shared["E"][adapter["K"].long()]
        if self.gain == "filter":
            return {"U": _gain(cells_obc.flatten(1), target), "K": adapter["K"]}
        many = max(1, CHUNK // max(1, cells_obc.shape[1] * target.kernel_on.shape[1]))
        parts = zip(cells_obc.split(many), target.cross_on.split(many), strict=True)
        return {"U": torch.cat([_gains(cells, cross, target.moment) for cells, cross in parts]), "K": adapter["K"]}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (_over_cells(adapter["U"]) * shared["E"][adapter["K"].long()]).reshape(shape)

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


def _over_cells(gain: Tensor) -> Tensor:
    """Gains (out) or (out x blocks), to multiply cells (out x blocks x numbers) by."""
    return gain.view(len(gain), -1, 1)


def _gain(kernel_on: Tensor, target: Target) -> Tensor:
    """(out): the least-squares gain of each filter as a whole."""
    energy_o = (times(kernel_on, target.moment) * kernel_on).sum(1)
    return (target.cross_on * kernel_on).sum(1) / energy_o.clamp_min(TINY)


def _descend(
    bank_rc: Tensor, gains: Sequence[Tensor], codes: Sequence[Tensor], targets: Sequence[Target], steps: int
) -> tuple[Tensor, list[Tensor]]:
    """The bank and all gains together down the exact error, the codes held."""
    scale = 1 / weighted_energy(targets)

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        bank, *own = point
        value, slope_rc, slopes = 0.0, torch.zeros_like(bank), []
        for gain, code_ob, target in zip(own, codes, targets, strict=True):
            cells_obc, part = bank[code_ob], scale * target.weight
            kernel_on = (_over_cells(gain) * cells_obc).flatten(1)
            seen_on = times(kernel_on, target.moment)
            value += part * float(((seen_on - 2 * target.cross_on) * kernel_on).sum())
            slope_obc = 2 * part * (seen_on - target.cross_on).view_as(cells_obc)
            slope_rc.index_add_(0, code_ob.flatten(), (_over_cells(gain) * slope_obc).flatten(0, 1))
            slopes.append(
                (slope_obc * cells_obc).sum(2).sum_to_size(len(gain), _over_cells(gain).shape[1]).view_as(gain)
            )
        return value, [slope_rc, *slopes]

    bank_rc, *found = minimise(error, [bank_rc, *gains], steps)
    return bank_rc, found
