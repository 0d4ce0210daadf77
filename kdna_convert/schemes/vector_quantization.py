"""Vector quantization of kernels: a bank of cells, and the code of each cell of a kernel.

A bank starts from k-means of all cells under their mean moment. The code of each cell is then chosen cell after cell,
with the error of earlier cells fed forward through the whole moment of the layer's inputs, as rounding does for single
numbers (GPTQ, arXiv 2210.17323; for vectors GPTVQ, arXiv 2402.15319).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..core.linalg import TINY, Kronecker, Moment, Target, dense, inverse_factor, mean_diagonal
from .warehouse import cells_of

# Products of cells and codes that are held at once: few enough to stay in the cache.
_CACHED = 2**20
# Blocks whose errors are fed to the later ones together.
LAZY = 16
# The smallest positive number of float32.
TINY_SINGLE = torch.finfo(torch.float32).tiny
# Damping of the moment, of its mean diagonal. Cells are approximated far more coarsely than numbers are rounded: for
# strongly correlated inputs, the error that is fed forward could leave the range of the bank. 0.01 does as well on
# ResNet-56.
DAMPING = 0.1
# The most cells for each code that k-means runs on.
PER_CODE = 256


@dataclass(frozen=True)
class ErrorFeedback:
    """How the errors of the cells of several layers (l) are fed forward, float32.

    A cell has p channels of t taps. The upper factor of the inverse moment is R (x) T. For a full moment p are the
    numbers of the cell and T is 1.

    Attributes:
        order_lb: The order of the blocks, largest input first.
        upper_lii: R in that order.
        taps_ltt: T.
        inverse_lbcc: The inverses of the diagonal blocks of R (x) T.
    """

    order_lb: Tensor
    upper_lii: Tensor
    taps_ltt: Tensor
    inverse_lbcc: Tensor


def error_feedback(target: Target, blocks: int) -> ErrorFeedback:
    """The feedback of one layer, computed once for its target. Raises NumericsError KD703 without a factor."""
    kept = target.memo.get(("error feedback", blocks))
    if kept is None:
        kept = target.memo["error feedback", blocks] = _error_feedback(target.moment, blocks)
    return cast("ErrorFeedback", kept)


def _error_feedback(moment: Moment, blocks: int) -> ErrorFeedback:
    if isinstance(moment, Kronecker):
        order_b, upper_ii = _factor(moment.channels_cc, blocks)
        _, taps_tt = _factor(moment.taps_tt, 1)
    else:
        order_b, upper_ii = _factor(moment, blocks)
        taps_tt = upper_ii.new_ones(1, 1)
    own_bpp = torch.einsum("bpbq->bpq", upper_ii.view(blocks, -1, blocks, len(upper_ii) // blocks))
    inverse_bptqu = torch.einsum("bpq,tu->bptqu", torch.linalg.inv(own_bpp), torch.linalg.inv(taps_tt))
    inverse_bcc = inverse_bptqu.flatten(3).flatten(1, 2)
    return ErrorFeedback(order_b[None], upper_ii.float()[None], taps_tt.float()[None], inverse_bcc.float()[None])


def stack_feedback(of_layers: Sequence[ErrorFeedback]) -> ErrorFeedback:
    """The feedback of several layers of one shape."""
    parts = [(one.order_lb, one.upper_lii, one.taps_ltt, one.inverse_lbcc) for one in of_layers]
    return ErrorFeedback(*map(torch.cat, zip(*parts, strict=True)))


def choose_codes(
    bank_rc: Tensor, gain_lom: Tensor | None, kernel_lon: Tensor, feedback: ErrorFeedback, again: int = 0
) -> Tensor:
    """Choose the codes of the cells of kernels of one shape: indices into the bank, (layers, out, blocks, codes).

    The error of a cell is fed to its group of LAZY blocks at once, that of a group to all later blocks together, as in
    GPTQ.

    Args:
        bank_rc: The bank of cells.
        gain_lom: The factor of each code of a filter's cells. None: a cell has one code and its own best gain.
        kernel_lon: The kernels.
        feedback: How the error of a cell is fed forward.
        again: As in nearest_sum.
    """
    (layers, out, _), blocks, taps = kernel_lon.shape, feedback.order_lb.shape[1], feedback.taps_ltt.shape[1]
    cells_lobpt = kernel_lon.float().view(layers, out, blocks, -1, taps)
    ordered = [own[:, order] for own, order in zip(cells_lobpt, feedback.order_lb, strict=True)]
    width = cells_lobpt.shape[3]
    rest_lxi = torch.stack(ordered).permute(0, 1, 4, 2, 3).reshape(layers, out * taps, blocks * width)
    bank_rc, gain_lom = bank_rc.float(), None if gain_lom is None else gain_lom.float()
    codes = []
    for start in range(0, blocks, LAZY):
        stop = min(start + LAZY, blocks)
        held_lxj = rest_lxi[:, :, start * width : stop * width]
        upper_lji = feedback.upper_lii[:, start * width : stop * width]
        errors = []
        for b in range(start, stop):
            own, later = slice((b - start) * width, (b + 1 - start) * width), slice((b + 1 - start) * width, None)
            cell_lopt = held_lxj[:, :, own].unflatten(1, (out, taps)).transpose(2, 3)
            inverse_lcc = feedback.inverse_lbcc[:, b]
            code_lom, error_loc = _chosen(cell_lopt.flatten(2) @ inverse_lcc, bank_rc @ inverse_lcc, gain_lom, again)
            codes.append(code_lom)
            error_lopt = error_loc.view(layers, out, width, taps) @ feedback.taps_ltt[:, None]
            errors.append(error_lopt.transpose(2, 3).flatten(1, 2))
            held_lxj[:, :, later] -= errors[-1] @ upper_lji[:, own, (b + 1) * width : stop * width]
        rest_lxi[:, :, stop * width :] -= torch.cat(errors, 2) @ upper_lji[:, :, stop * width :]
    chosen_lobm = torch.stack(codes, 2)
    back = [own[:, order.argsort()] for own, order in zip(chosen_lobm, feedback.order_lb, strict=True)]
    return torch.stack(back)


def _chosen(cell_loc: Tensor, bank_lrc: Tensor, gain_lom: Tensor | None, again: int) -> tuple[Tensor, Tensor]:
    """The codes of one block's cells (layers, out, codes), and their errors."""
    if gain_lom is not None:
        return nearest_sum(cell_loc, bank_lrc, gain_lom, again)
    code_lo, gain_lo = nearest_line(cell_loc, bank_lrc)
    return code_lo[..., None], cell_loc - gain_lo[..., None] * _rows(bank_lrc, code_lo)


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
    """The row whose line each cell is nearest to, and the signed gain of the nearest point.

    Cells and bank may have an axis of layers in front, here and in the functions below.
    """
    energy_r = bank_rc.square().sum(-1).clamp_min(TINY if bank_rc.dtype == torch.float64 else TINY_SINGLE)
    code_x = _largest(cells_xc, bank_rc / energy_r.sqrt()[..., None], signed=False)
    return code_x, (cells_xc * _rows(bank_rc, code_x)).sum(-1) / energy_r.gather(-1, code_x)


def nearest_point(cells_xc: Tensor, bank_rc: Tensor, gain_x: Tensor | None = None) -> Tensor:
    """The row e whose product with the cell's gain g is nearest to each cell x: the largest g x . e - g^2 |e|^2 / 2."""
    return _nearest(cells_xc, _extended(bank_rc), torch.ones_like(cells_xc[..., 0]) if gain_x is None else gain_x)


def _extended(bank_rc: Tensor) -> Tensor:
    """The rows e with -|e|^2 / 2 behind each."""
    return torch.cat([bank_rc, -bank_rc.square().sum(-1, keepdim=True) / 2], -1).float()


def _nearest(cells_xc: Tensor, extended_rd: Tensor, gain_x: Tensor) -> Tensor:
    gain_x1 = gain_x[..., None]
    return _largest(torch.cat([gain_x1 * cells_xc, gain_x1.square()], -1), extended_rd, signed=True)


def nearest_sum(cells_xc: Tensor, bank_rc: Tensor, gain_xm: Tensor, again: int) -> tuple[Tensor, Tensor]:
    """Choose rows (cells, codes) whose sum, each times its gain, is near each cell. Returns the rows and the rest.

    They are chosen one after the other, each for the rest of those before it. Then each is chosen again for the rest of
    all others, `again` times (iterated conditional modes).
    """
    left_xc, gains, extended_rd = cells_xc, gain_xm.unbind(-1), _extended(bank_rc)
    codes: list[Tensor] = []
    for gain_x in gains:
        codes.append(_nearest(left_xc, extended_rd, gain_x))
        left_xc = left_xc - gain_x[..., None] * _rows(bank_rc, codes[-1])
    for _ in range(again if len(gains) > 1 else 0):
        for place, gain_x in enumerate(gains):
            without_xc = left_xc + gain_x[..., None] * _rows(bank_rc, codes[place])
            codes[place] = _nearest(without_xc, extended_rd, gain_x)
            left_xc = without_xc - gain_x[..., None] * _rows(bank_rc, codes[place])
    return torch.stack(codes, -1), left_xc


def _rows(bank_rc: Tensor, code_x: Tensor) -> Tensor:
    return bank_rc[code_x] if bank_rc.ndim == 2 else bank_rc.take_along_dim(code_x[..., None], -2)


def _largest(cells_xc: Tensor, bank_rc: Tensor, *, signed: bool) -> Tensor:
    """The row with the largest product for each cell. NumPy's argmax is a dozen times faster than torch's here."""
    cells_xc, bank_cr = cells_xc.float(), bank_rc.float().mT
    many = _CACHED // bank_cr.shape[-1]
    if cells_xc.ndim == 3 and len(cells_xc) * cells_xc.shape[1] > many:
        return torch.stack([_largest(*own, signed=signed) for own in zip(cells_xc, bank_rc, strict=True)])
    chunks = cells_xc.split(max(1, many)) if cells_xc.ndim == 2 else [cells_xc]
    seen = (chunk @ bank_cr for chunk in chunks)
    return torch.from_numpy(np.concatenate([(one if signed else one.abs_()).numpy().argmax(-1) for one in seen]))


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
