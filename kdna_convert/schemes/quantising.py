"""Vector quantisation of kernels: a bank of cells, and which of them stands for each cell of a kernel.

A bank is begun by k-means of all cells under their mean moment. Which code a cell takes is then decided cell after
cell, with the error of those before fed forward into it through the whole moment of the layer's inputs, as rounding
does for single numbers (GPTQ, arXiv 2210.17323; for vectors GPTVQ, arXiv 2402.15319).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import NumericsError
from ..linalg import TINY, Kronecker, Moment, Target, dense, mean_diagonal
from .warehouse import cells_of

# Products of cells and codes that are held at once: a few, which stay in the cache.
_CACHED = 2**20
# Of the mean diagonal. Cells are met far more coarsely than numbers are rounded: where inputs have nearly everything to
# do with each other, what is fed forward could leave the reach of the bank. A hundredth does as well on ResNet-56.
DAMPING = 0.1


@dataclass(frozen=True)
class Feed:
    """How the error of a cell is carried on: the order of the blocks, largest input first, the upper factor R of the
    inverse moment in that order, C^-1 = R^T R, as (block x number x block x number), and the inverses of its diagonal
    blocks."""

    order_b: Tensor
    upper_bcbc: Tensor
    inverse_bcc: Tensor


def feed(moment: Moment, blocks: int) -> Feed:
    """Raises NumericsError KD703 for a moment that has no factor."""
    if isinstance(moment, Kronecker):
        order_b, channels = _factor(moment.channels_cc, blocks)
        _, taps = _factor(moment.taps_tt, 1)
        upper = torch.kron(channels, taps)
    else:
        order_b, upper = _factor(moment, blocks)
    upper_bcbc = upper.view(blocks, -1, blocks, len(upper) // blocks)
    return Feed(order_b, upper_bcbc, torch.linalg.inv(torch.einsum("bcbd->bcd", upper_bcbc)))


def codes_of(bank_rc: Tensor, gain_o: Tensor | None, kernel_on: Tensor, how: Feed) -> Tensor:
    """(out x blocks): indices into the bank. `gain_o` is what a filter's cells are multiplied by; without it each cell
    has a gain of its own, whichever serves it best."""
    blocks = len(how.order_b)
    rest_obc = kernel_on.view(len(kernel_on), blocks, -1)[:, how.order_b].clone()
    code_ob = torch.empty(rest_obc.shape[:2], dtype=torch.int64)
    for b in range(blocks):
        cell_oc, seen_rc = rest_obc[:, b] @ how.inverse_bcc[b], bank_rc @ how.inverse_bcc[b]
        if gain_o is None:
            code_o, gain = nearest_line(cell_oc, seen_rc)
        else:
            code_o, gain = nearest_point(cell_oc / gain_o[:, None], seen_rc), gain_o
        code_ob[:, b] = code_o
        error_oc = cell_oc - gain[:, None] * seen_rc[code_o]
        rest_obc[:, b + 1 :] -= torch.einsum("oc,cbd->obd", error_oc, how.upper_bcbc[b, :, b + 1 :])
    return code_ob[:, how.order_b.argsort()]


def lines(targets: Sequence[Target], blocks: Sequence[int], rank: int, seed: int, rounds: int) -> Tensor:
    """A bank of unit cells: k-means of lines through the origin, so that a gain of either sign serves each cell."""
    cells, root_cc = _whitened(targets, blocks)
    cells_xc = torch.cat(cells)
    bank_rc = _unit(_some(cells_xc, rank, seed))
    for _ in range(rounds):
        code_x, gain_x = nearest_line(cells_xc, bank_rc)
        pulled_rc = torch.zeros_like(bank_rc).index_add_(0, code_x, gain_x[:, None] * cells_xc)
        bank_rc = torch.where(pulled_rc.norm(dim=1, keepdim=True) > 0, _unit(pulled_rc), bank_rc)
    return _unit(_over(bank_rc, root_cc))


def points(
    targets: Sequence[Target], blocks: Sequence[int], rank: int, seed: int, rounds: int
) -> tuple[Tensor, list[Tensor]]:
    """A bank of cells, and each member's gains (out): k-means of cells over the size of the filter they are in."""
    cells, root_cc = _whitened(targets, blocks)
    sizes = [
        own.view(len(t.kernel_on), -1).square().mean(1).clamp_min(TINY).sqrt()
        for own, t in zip(cells, targets, strict=True)
    ]
    size_x = torch.cat([size.repeat_interleave(count) for size, count in zip(sizes, blocks, strict=True)])
    cells_xc, weight_x1 = torch.cat(cells) / size_x[:, None], size_x[:, None].square()
    bank_rc = _some(cells_xc, rank, seed)
    for _ in range(rounds):
        code_x = nearest_point(cells_xc, bank_rc)
        pulled_rc = torch.zeros_like(bank_rc).index_add_(0, code_x, weight_x1 * cells_xc)
        total_r1 = torch.zeros(len(bank_rc), 1, dtype=bank_rc.dtype).index_add_(0, code_x, weight_x1)
        bank_rc = torch.where(total_r1 > 0, pulled_rc / total_r1.clamp_min(TINY), bank_rc)
    felt = [(target.weight * mean_diagonal(target.moment)) ** 0.5 for target in targets]
    gains = [size / max(own, TINY) for size, own in zip(sizes, felt, strict=True)]
    return _over(bank_rc, root_cc), gains


def nearest_line(cells_xc: Tensor, bank_rc: Tensor) -> tuple[Tensor, Tensor]:
    """The row through whose line each cell comes nearest, and the gain, signed, at which it does."""
    energy_r = bank_rc.square().sum(1).clamp_min(TINY)
    unit_cr = (bank_rc / energy_r.sqrt()[:, None]).float().T
    code_x = _largest(cells_xc, unit_cr, lambda seen_xr: seen_xr.abs_())
    return code_x, (cells_xc * bank_rc[code_x]).sum(1) / energy_r[code_x]


def nearest_point(cells_xc: Tensor, bank_rc: Tensor) -> Tensor:
    """The row nearest to each cell: the one of largest x . e - |e|^2 / 2."""
    extended_cr = torch.cat([bank_rc, -bank_rc.square().sum(1, keepdim=True) / 2], 1).float().T
    extended_xc = torch.cat([cells_xc, cells_xc.new_ones(len(cells_xc), 1)], 1)
    return _largest(extended_xc, extended_cr, lambda seen_xr: seen_xr)


def _largest(cells_xc: Tensor, bank_cr: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The column with whose product each row is largest. NumPy's argmax is a dozen times faster than torch's here."""
    chunks = cells_xc.float().split(max(1, _CACHED // bank_cr.shape[1]))
    return torch.from_numpy(np.concatenate([of(chunk @ bank_cr).numpy().argmax(1) for chunk in chunks]))


def _whitened(targets: Sequence[Target], blocks: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Each member's cells in coordinates in which errors simply add up, and the matrix that they were multiplied by."""
    parts = [cells_of(target, count) for target, count in zip(targets, blocks, strict=True)]
    metric_cc = torch.stack([dense(part.moment) / mean_diagonal(part.moment) for part in parts]).mean(0)
    values, vectors = torch.linalg.eigh(metric_cc)
    root_cc = vectors * values.clamp_min(values.max() * 1e-9).sqrt()
    return [part.kernel_on @ root_cc * (part.weight * mean_diagonal(part.moment)) ** 0.5 for part in parts], root_cc


def _factor(moment_nn: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """The order of the blocks and the upper factor of the inverse in that order."""
    moment_bcbc = moment_nn.view(blocks, len(moment_nn) // blocks, blocks, -1)
    order_b = torch.einsum("bcbc->b", moment_bcbc).argsort(descending=True, stable=True)
    ordered_nn = moment_bcbc[order_b][:, :, order_b].reshape(moment_nn.shape)
    ordered_nn.diagonal().add_(DAMPING * ordered_nn.diagonal().mean())
    lower_nn, failed = torch.linalg.cholesky_ex(ordered_nn)
    if not failed:
        upper_nn, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_nn), upper=True)
    if failed:
        raise NumericsError("KD703", "a layer's second moment has no Cholesky factor; calibrate on more images")
    return order_b, upper_nn


def _over(rows_xc: Tensor, matrix_cc: Tensor) -> Tensor:
    """X M^-1."""
    solved: Tensor = torch.linalg.solve(matrix_cc, rows_xc, left=False)
    return solved


def _some(cells_xc: Tensor, rank: int, seed: int) -> Tensor:
    """As many of the cells as the bank has, chosen at random; all of them, and some twice, where there are fewer."""
    order = torch.randperm(len(cells_xc), generator=torch.Generator().manual_seed(seed))
    return cells_xc[order[torch.arange(rank) % len(order)]]


def _unit(rows: Tensor) -> Tensor:
    norm_r1: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norm_r1.clamp_min(1e-300)
