"""Vector quantization of kernels: a bank of cells, and the code of each cell of a kernel.

A bank starts from k-means of all cells under their mean moment. The code of each cell is then chosen cell after cell,
with the error of earlier cells fed forward through the whole moment of the layer's inputs, as rounding does for single
numbers (GPTQ, arXiv 2210.17323; for vectors GPTVQ, arXiv 2402.15319).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.linalg import TINY, Kronecker, Moment, Target, dense, inverse_factor, mean_diagonal
from .warehouse import cells_of

# Products of cells and codes that are held at once: few enough to stay in the cache.
_CACHED = 2**20
# Damping of the moment, of its mean diagonal. Cells are approximated far more coarsely than numbers are rounded: for
# strongly correlated inputs, the error that is fed forward could leave the range of the bank. 0.01 does as well on
# ResNet-56.
DAMPING = 0.1
# The most cells for each code that k-means runs on.
PER_CODE = 256


@dataclass(frozen=True)
class ErrorFeedback:
    """How the error of a cell is fed forward.

    Attributes:
        order_b: The order of the blocks, largest input first.
        upper_bcbc: The upper factor R of the inverse moment in that order, C^-1 = R^T R, as (block, number, block,
            number).
        inverse_bcc: The inverses of its diagonal blocks.
    """

    order_b: Tensor
    upper_bcbc: Tensor
    inverse_bcc: Tensor


def error_feedback(moment: Moment, blocks: int) -> ErrorFeedback:
    """The feedback for a moment and a number of blocks. Raises NumericsError KD703 if the moment has no factor."""
    if isinstance(moment, Kronecker):
        order_b, channels = _factor(moment.channels_cc, blocks)
        _, taps = _factor(moment.taps_tt, 1)
        upper = torch.kron(channels, taps)
    else:
        order_b, upper = _factor(moment, blocks)
    upper_bcbc = upper.view(blocks, -1, blocks, len(upper) // blocks)
    return ErrorFeedback(order_b, upper_bcbc, torch.linalg.inv(torch.einsum("bcbd->bcd", upper_bcbc)))


def choose_codes(
    bank_rc: Tensor, gain_om: Tensor | None, kernel_on: Tensor, feedback: ErrorFeedback, again: int = 0
) -> Tensor:
    """Choose the codes of a kernel's cells: indices into the bank, (out, blocks, codes).

    Args:
        bank_rc: The bank of cells.
        gain_om: The factor of each code of a filter's cells. None: a cell has one code and its own best gain.
        kernel_on: The kernel.
        feedback: How the error of a cell is fed forward.
        again: As in nearest_sum.
    """
    blocks = len(feedback.order_b)
    rest_obc = kernel_on.view(len(kernel_on), blocks, -1)[:, feedback.order_b].clone()
    codes = []
    for b in range(blocks):
        cell_oc, seen_rc = rest_obc[:, b] @ feedback.inverse_bcc[b], bank_rc @ feedback.inverse_bcc[b]
        if gain_om is None:
            code_o, gain_o = nearest_line(cell_oc, seen_rc)
            codes.append(code_o[:, None])
            error_oc = cell_oc - gain_o[:, None] * seen_rc[code_o]
        else:
            code_om, error_oc = nearest_sum(cell_oc, seen_rc, gain_om, again)
            codes.append(code_om)
        rest_obc[:, b + 1 :] -= torch.einsum("oc,cbd->obd", error_oc, feedback.upper_bcbc[b, :, b + 1 :])
    return torch.stack(codes, 1)[:, feedback.order_b.argsort()]


def line_bank(targets: Sequence[Target], blocks: Sequence[int], rank: int, seed: int, rounds: int) -> Tensor:
    """A bank of unit cells: k-means of lines through the origin, since gains can have either sign."""
    cells, root_cc = _whitened(targets, blocks)
    cells_xc = torch.cat(cells)
    cells_xc = cells_xc[_drawn(len(cells_xc), rank, seed)]
    bank_rc = _unit(_some(cells_xc, rank))
    for _ in range(rounds):
        code_x, gain_x = nearest_line(cells_xc, bank_rc)
        pulled_rc = torch.zeros_like(bank_rc).index_add_(0, code_x, gain_x[:, None] * cells_xc)
        bank_rc = torch.where(pulled_rc.norm(dim=1, keepdim=True) > 0, _unit(pulled_rc), bank_rc)
    return _unit(_over(bank_rc, root_cc))


def point_bank(
    targets: Sequence[Target], blocks: Sequence[int], rank: int, codes: int, seed: int, rounds: int
) -> tuple[Tensor, list[Tensor]]:
    """A bank of cells, and each member's gains (out, codes): k-means of cells divided by the size of their filter.

    Each code has its own part of the bank, from k-means of the rest that earlier codes left.
    """
    cells, root_cc = _whitened(targets, blocks)
    banks: list[Tensor] = []
    gains: list[list[Tensor]] = []
    for code in range(codes):
        if banks:
            cells = [_left(own, size, banks[-1]) for own, size in zip(cells, gains[-1], strict=True)]
        gains.append([_size(own, count) for own, count in zip(cells, blocks, strict=True)])
        part = max(1, rank * (code + 1) // codes - rank * code // codes)
        banks.append(_centers(cells, gains[-1], part, seed + code, rounds))
    scales = [(target.weight * mean_diagonal(target.moment)) ** 0.5 for target in targets]
    members = zip(scales, zip(*gains, strict=True), strict=True)
    return _over(torch.cat(banks)[:rank], root_cc), [torch.stack(sizes, 1) / max(own, TINY) for own, sizes in members]


def _centers(cells: Sequence[Tensor], sizes: Sequence[Tensor], rank: int, seed: int, rounds: int) -> Tensor:
    """K-means of cells divided by the size of their filter."""
    size_x = torch.cat([_repeated(size, own) for own, size in zip(cells, sizes, strict=True)])
    drawn_x = _drawn(len(size_x), rank, seed)
    weight_x1 = size_x[drawn_x, None].square()
    cells_xc = torch.cat(list(cells))[drawn_x] / size_x[drawn_x, None]
    bank_rc = _some(cells_xc, rank)
    for _ in range(rounds):
        code_x = nearest_point(cells_xc, bank_rc)
        pulled_rc = torch.zeros_like(bank_rc).index_add_(0, code_x, weight_x1 * cells_xc)
        total_r1 = torch.zeros(len(bank_rc), 1, dtype=bank_rc.dtype).index_add_(0, code_x, weight_x1)
        bank_rc = torch.where(total_r1 > 0, pulled_rc / total_r1.clamp_min(TINY), bank_rc)
    return bank_rc


def _size(cells_xc: Tensor, blocks: int) -> Tensor:
    """The root mean square of each filter's cells, (out,)."""
    return cells_xc.view(-1, blocks * cells_xc.shape[1]).square().mean(1).clamp_min(TINY).sqrt()


def _left(cells_xc: Tensor, size_o: Tensor, bank_rc: Tensor) -> Tensor:
    """The rest of the cells after their nearest rows, times their filter's size, are subtracted."""
    size_x = _repeated(size_o, cells_xc)
    return cells_xc - size_x[:, None] * bank_rc[nearest_point(cells_xc, bank_rc, size_x)]


def _repeated(size_o: Tensor, cells_xc: Tensor) -> Tensor:
    return size_o.repeat_interleave(len(cells_xc) // len(size_o))


def nearest_line(cells_xc: Tensor, bank_rc: Tensor) -> tuple[Tensor, Tensor]:
    """The row whose line each cell is nearest to, and the signed gain of the nearest point."""
    energy_r = bank_rc.square().sum(1).clamp_min(TINY)
    unit_cr = (bank_rc / energy_r.sqrt()[:, None]).float().T
    code_x = _largest(cells_xc, unit_cr, lambda seen_xr: seen_xr.abs_())
    return code_x, (cells_xc * bank_rc[code_x]).sum(1) / energy_r[code_x]


def nearest_point(cells_xc: Tensor, bank_rc: Tensor, gain_x: Tensor | None = None) -> Tensor:
    """The row e whose product with the cell's gain g is nearest to each cell x: the largest g x . e - g^2 |e|^2 / 2."""
    extended_cr = torch.cat([bank_rc, -bank_rc.square().sum(1, keepdim=True) / 2], 1).float().T
    gain_x1 = cells_xc.new_ones(len(cells_xc), 1) if gain_x is None else gain_x[:, None]
    extended_xc = torch.cat([gain_x1 * cells_xc, gain_x1.square()], 1)
    return _largest(extended_xc, extended_cr, lambda seen_xr: seen_xr)


def nearest_sum(cells_xc: Tensor, bank_rc: Tensor, gain_xm: Tensor, again: int) -> tuple[Tensor, Tensor]:
    """Choose rows (cells, codes) whose sum, each times its gain, is near each cell. Returns the rows and the rest.

    They are chosen one after the other, each for the rest of those before it. Then each is chosen again for the rest of
    all others, `again` times (iterated conditional modes).
    """
    left_xc, gains = cells_xc, gain_xm.unbind(1)
    codes: list[Tensor] = []
    for gain_x in gains:
        codes.append(nearest_point(left_xc, bank_rc, gain_x))
        left_xc = left_xc - gain_x[:, None] * bank_rc[codes[-1]]
    for _ in range(again if len(gains) > 1 else 0):
        for place, gain_x in enumerate(gains):
            without_xc = left_xc + gain_x[:, None] * bank_rc[codes[place]]
            codes[place] = nearest_point(without_xc, bank_rc, gain_x)
            left_xc = without_xc - gain_x[:, None] * bank_rc[codes[place]]
    return torch.stack(codes, 1), left_xc


def _largest(cells_xc: Tensor, bank_cr: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The column with the largest product for each row. NumPy's argmax is a dozen times faster than torch's here."""
    chunks = cells_xc.float().split(max(1, _CACHED // bank_cr.shape[1]))
    return torch.from_numpy(np.concatenate([of(chunk @ bank_cr).numpy().argmax(1) for chunk in chunks]))


def _whitened(targets: Sequence[Target], blocks: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Each member's cells in coordinates with a Euclidean error, and the matrix that they were multiplied by."""
    parts = [cells_of(target, count) for target, count in zip(targets, blocks, strict=True)]
    metric_cc = torch.stack([dense(part.moment) / mean_diagonal(part.moment) for part in parts]).mean(0)
    values, vectors = torch.linalg.eigh(metric_cc)
    root_cc = vectors * values.clamp_min(values.max() * 1e-9).sqrt()
    return [part.kernel_on @ root_cc * (part.weight * mean_diagonal(part.moment)) ** 0.5 for part in parts], root_cc


def _factor(moment_nn: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The order of the blocks, and the upper factor of the inverse moment in that order."""
    moment_bcbc = moment_nn.view(blocks, len(moment_nn) // blocks, blocks, -1)
    order_b = torch.einsum("bcbc->b", moment_bcbc).argsort(descending=True, stable=True)
    ordered_nn = moment_bcbc[order_b][:, :, order_b].reshape(moment_nn.shape)
    ordered_nn.diagonal().add_(DAMPING * ordered_nn.diagonal().mean())
    return order_b, inverse_factor(ordered_nn)


def _over(rows_xc: Tensor, matrix_cc: Tensor) -> Tensor:
    """X M^-1."""
    solved: Tensor = torch.linalg.solve(matrix_cc, rows_xc, left=False)
    return solved


def _drawn(cells: int, rank: int, seed: int) -> Tensor:
    """The cells that k-means runs on, in random order: all, or PER_CODE for each code."""
    return torch.randperm(cells, generator=torch.Generator().manual_seed(seed))[: max(1, PER_CODE * rank)]


def _some(cells_xc: Tensor, rank: int) -> Tensor:
    """As many cells as the bank has; some of them twice if there are fewer."""
    return cells_xc[torch.arange(rank) % len(cells_xc)]


def _unit(rows: Tensor) -> Tensor:
    norm_r1: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norm_r1.clamp_min(1e-300)
