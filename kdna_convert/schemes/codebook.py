"""Codebook: each cell of a kernel is a gain times one cell of the family's bank, or a sum of a few of these.

    W[o,(b,c),s] ~ U[o,b] E[K[o,b],c,s]             E (r x cell x taps) shared; K (out x in/cell) and U, as K or (out),
    W[o,(b,c),s] ~ sum_j U[o,j] E[K[o,b,j],c,s]     its own; with `codes` m, K (out x in/cell x m) and U (out x m)

KernelWarehouse's cells (Li et al., ICML 2024, arXiv 2406.07879), each a mixing of one or few: vector quantization of
kernels. With `gain: cell`, gain-shape quantization (Sabin and Gray 1984), with signs in the gains. With `gain: filter`,
one gain for each filter and plain codes, which halves the numbers that a layer keeps of its own. `codes` (with gain:
filter) is the number of bank cells that are added up, each for the rest of those before it: additive quantization
(Babenko and Lempitsky, CVPR 2014), all from one bank. K holds int16 indices, each counted as one parameter. `cell` is
the number of input channels that a cell spans, or their greatest common divisor: with 1, the default, a 3x3 kernel is
one index; 1x1 layers, for which that would be one number, are cut in 2 or 4. Kernels of any width share if that and the
taps agree: one bank serves all 3x3 layers of a net.
Parameters: r cell taps + codes sum(out in / cell) + the gains. At 3x3 this is never less than 1/9 of the dense ones,
2/9 with two codes or a gain for each cell.
Loses at smaller sizes, which it cannot reach, and if multiply-adds count, since it has no factored form. A fine-tune
changes E and U, never K.

Fit: a bank by k-means of the cells, and of what is left of them. Then, twice, the codes with the error of each cell fed
forward into the next (vector_quantization.py), and E and U down the exact error together by L-BFGS. U is
then solved in closed form.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..core.errors import NumericsError
from ..core.linalg import (
    JITTER,
    TINY,
    Kronecker,
    Moment,
    Target,
    minimize,
    search_target,
    single,
    times,
    times_inverse,
    weighted_energy,
)
from ..core.specs import Layout, Shape, SymbolicShape, product
from .dense_limit import dense_limit
from .scheme import Scheme, Tensors
from .vector_quantization import choose_codes, error_feedback, line_bank, point_bank, stack_feedback

# The most codes of a bank. An int16 allows more, but k-means takes cells x codes multiply-adds per round.
MOST = 2**14
# Rounds of k-means, and how often each of a cell's codes is chosen again for the rest of the others: of a fit, and of a
# quick fit, which has at most SHORT iterations and chooses the codes once.
ROUNDS, AGAIN = (24, 4), (2, 0)
SHORT = 30
# How often a repair chooses codes again, each time for the gains of the time before.
CHOSEN = 2
# The most numbers that a step over many filters holds at once.
CHUNK = 2**23


@dataclass(frozen=True)
class Codebook(Scheme):
    """Options: `rank`, the number of cells in the bank; `cell`, the input channels that a cell spans; `gain`, whether
    every cell or every filter has one; `codes`, the number of bank cells that add up to one cell, each with its own
    gain in every filter."""

    rank: int = 0
    cell: Annotated[int, Field(ge=1)] = 1
    gain: Literal["cell", "filter"] = "cell"
    codes: Annotated[int, Field(ge=1)] = 1

    name: ClassVar[str] = "codebook"
    size: ClassVar[str] = "rank"
    probes: ClassVar[tuple[float, ...]] = (0.0, 0.002, 0.01, 0.05, 0.25)  # the error falls with a power of the rank

    def __post_init__(self) -> None:
        if self.codes > 1 and self.gain == "cell":
            raise ValueError("more codes than one need gain: filter")

    def group(self, shape: Shape) -> Hashable:
        return gcd(shape[1], self.cell), product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The number of codes at which the family stores as much as its dense kernels, at most MOST."""
        return min(dense_limit(self.layout(shapes), shapes), MOST)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            cells, several = (shape[0], self._blocks(shape)), () if self.codes == 1 else (self.codes,)
            return {"U": cells if self.gain == "cell" else (*shape[:1], *several), "K": (*cells, *several)}

        return Layout({"E": ("rank", self._length(shapes[0]))}, tuple(map(adapter, shapes)), indices=("K",))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return product(shape) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        searched = [search_target(target) for target in targets]
        blocks = [self._blocks(target.shape) for target in targets]
        quick = sweeps <= SHORT
        rounds, again = ROUNDS[quick], AGAIN[quick]
        # The gains that codes are chosen for; None: the best gain of each code.
        code_gains: Sequence[Tensor | None] = [None] * len(targets)
        if self.gain == "cell":
            bank_rc = line_bank(searched, blocks, self.rank, seed, rounds)
        else:
            bank_rc, code_gains = point_bank(searched, blocks, self.rank, self.codes, seed, rounds)
        for steps in (sweeps // 4,) if quick else (sweeps // 3, sweeps):
            codes = _choose_codes(bank_rc, code_gains, searched, blocks, again)
            solved = [self._solve(bank_rc, code, target) for code, target in zip(codes, searched, strict=True)]
            bank_rc, solved = _descend(bank_rc, solved, codes, searched, steps)
            code_gains = [gain_obm[:, 0] for gain_obm in solved] if self.gain == "filter" else code_gains
        shared = {"E": bank_rc}
        kept = [{"K": self._kept(code).to(torch.int16)} for code in codes]
        return shared, [self.fit(shared, own, target) for own, target in zip(kept, targets, strict=True)]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares, all gains of a filter together. The indices are fixed."""
        gain_obm = self._solve(shared["E"], self._codes(adapter), target)
        return {"U": self._kept(gain_obm if self.gain == "cell" else gain_obm[:, 0]), "K": adapter["K"]}

    def reassign(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """The bank is fixed. The indices are chosen for the present gains, then for the new ones."""
        solution = replace(target, kernel_on=times_inverse(target.cross_on, target.moment))
        searched, blocks = search_target(solution), self._blocks(target.shape)
        for _ in range(CHOSEN):
            gain_om = None if self.gain == "cell" else self._gains(adapter)[:, 0]
            (code_obm,) = _choose_codes(shared["E"], [gain_om], [searched], [blocks], AGAIN[0])
            adapter = self.fit(shared, {"K": self._kept(code_obm).to(torch.int16)}, target)
        return adapter

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return _summed(self._gains(adapter), shared["E"][self._codes(adapter)]).reshape(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return None

    def _solve(self, bank_rc: Tensor, code_obm: Tensor, target: Target) -> Tensor:
        """The least-squares gains of cells (out, blocks, 1) or of filters (out, 1, codes)."""
        if self.gain == "filter":
            cells_obmc = bank_rc[code_obm]
            return _gain(cells_obmc.movedim(2, 1).flatten(2), target)[:, None]
        cells_obc = bank_rc[code_obm[..., 0]]
        many = max(1, CHUNK // max(1, cells_obc.shape[1] * target.kernel_on.shape[1]))
        parts = zip(cells_obc.split(many), target.cross_on.split(many), strict=True)
        return torch.cat([_gains(cells, cross, target.moment) for cells, cross in parts])[..., None]

    def _gains(self, adapter: Tensors) -> Tensor:
        """The gains (out, blocks, codes); an axis that has one gain in common is 1."""
        gains = adapter["U"] if self.gain == "cell" else adapter["U"][:, None]
        return gains if self.codes > 1 else gains[..., None]

    def _codes(self, adapter: Tensors) -> Tensor:
        """The indices (out, blocks, codes)."""
        return (adapter["K"] if self.codes > 1 else adapter["K"][..., None]).long()

    def _kept(self, of_codes: Tensor) -> Tensor:
        """Drop the last axis if there is one code."""
        return of_codes if self.codes > 1 else of_codes[..., 0]

    def _length(self, shape: Shape) -> int:
        """The numbers in a cell."""
        return gcd(shape[1], self.cell) * product(shape[2:])

    def _blocks(self, shape: Shape) -> int:
        return shape[1] // gcd(shape[1], self.cell)


def _choose_codes(
    bank_rc: Tensor,
    gains: Sequence[Tensor | None],
    targets: Sequence[Target],
    blocks: Sequence[int],
    again: int,
) -> list[Tensor]:
    """The codes of each kernel's cells, for its gains (out, codes). Layers of one shape are chosen together."""
    codes: dict[int, Tensor] = {}
    for alike in _alike(targets):
        first = gains[alike[0]]
        gain_lom = None if first is None else torch.stack([gain for i in alike if (gain := gains[i]) is not None])
        feedback = stack_feedback([error_feedback(targets[i], blocks[i]) for i in alike])
        kernel_lon = torch.stack([targets[i].kernel_on for i in alike])
        codes |= zip(alike, choose_codes(bank_rc, gain_lom, kernel_lon, feedback, again), strict=True)
    return [codes[i] for i in range(len(targets))]


def _alike(targets: Sequence[Target]) -> list[list[int]]:
    """The places of the targets of one shape and form, in parts whose moments have up to CHUNK numbers."""
    groups: dict[tuple[Shape, bool], list[int]] = {}
    for place, target in enumerate(targets):
        groups.setdefault((target.shape, isinstance(target.moment, Kronecker)), []).append(place)
    many = {key: max(1, CHUNK // product(key[0][1:]) ** 2) for key in groups}
    return [members[i : i + many[key]] for key, members in groups.items() for i in range(0, len(members), many[key])]


def _gains(cells_obc: Tensor, cross_on: Tensor, moment: Moment) -> Tensor:
    """The least-squares gains of these cells, (out, blocks). Raises NumericsError KD703."""
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


def _gain(kernels_omn: Tensor, target: Target) -> Tensor:
    """The least-squares gains (out, codes) of the kernels that each code of a filter makes."""
    seen_omn = torch.stack([times(kernel_on, target.moment) for kernel_on in kernels_omn.unbind(1)], 1)
    normal_omp = seen_omn @ kernels_omn.mT
    normal_omp.diagonal(dim1=1, dim2=2).mul_(1 + JITTER).add_(TINY)
    pull_om1 = kernels_omn @ target.cross_on[:, :, None]
    found_om1: Tensor = torch.linalg.solve_ex(normal_omp, pull_om1).result
    return found_om1.nan_to_num(0.0, 0.0, 0.0)[:, :, 0]


def _summed(gain_obm: Tensor, cells_obmc: Tensor) -> Tensor:
    """The sum of each cell's codes times their gains, (out, blocks, numbers)."""
    if cells_obmc.shape[2] == 1:
        return gain_obm * cells_obmc[:, :, 0]
    return (gain_obm[..., None] * cells_obmc).sum(2)


def _descend(
    bank_rc: Tensor, gains: Sequence[Tensor], codes: Sequence[Tensor], targets: Sequence[Target], steps: int
) -> tuple[Tensor, list[Tensor]]:
    """Minimize the exact error over the bank and all gains, with the codes fixed. Its products are in float32."""
    whole, singles = weighted_energy(targets), [single(target) for target in targets]

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        bank, value, slope_rc, slopes = point[0].float(), 0.0, torch.zeros_like(point[0]), []
        for gain_obm, code_obm, target in zip(point[1:], codes, singles, strict=True):
            cells_obmc, own_obm, part = bank[code_obm], (gain_obm / target.size).float(), target.weight / whole
            gap_on = _summed(own_obm, cells_obmc).flatten(1) - target.kernel_on
            seen_on = times(gap_on, target.moment) - target.beyond_on
            value += part * float(((seen_on - target.beyond_on) * gap_on).sum())
            seen_ob1c = 2 * seen_on.view_as(cells_obmc[:, :, 0])[:, :, None]
            by_bank_rc = torch.zeros_like(bank).index_add_(
                0, code_obm.flatten(), (own_obm[..., None] * seen_ob1c).flatten(0, 2)
            )
            slope_rc += part * by_bank_rc.double()
            slopes.append(part / target.size * (seen_ob1c * cells_obmc).sum(3).sum_to_size(gain_obm.shape).double())
        return value, [slope_rc, *slopes]

    bank_rc, *solved = minimize(error, [bank_rc, *gains], steps, gain=0.0)
    return bank_rc, solved
