"""Variable projection: the joint search of the schemes whose kernels are mixings of rows.

    W_l[o,n] ~ sum_r U_l[o,r] R_l[r,n]          R_l a function of the tensors that are searched for

At the best U_l the error is a function of those tensors alone, and its gradient by the rows is the one with U_l held
fixed (Golub and Pereyra 1973). Autograd only carries it from the rows to the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..core.linalg import Target, minimize, mix, search_target, times, weighted_energy

# The tensors searched for, and a member's place in the family, give that member's rows (r x n), differentiably.
Rows = Callable[[Sequence[Tensor], int], Tensor]


def search(rows: Rows, start: Sequence[Tensor], targets: Sequence[Target], sweeps: int) -> list[Tensor]:
    """Find the tensors whose rows, at their best mixing, leave the least weighted error, by L-BFGS.

    Long patches use the Kronecker form of their moment. The mixing of the rows is later solved with the full moment.
    """
    searched = [search_target(target) for target in targets]
    scale = 1 / weighted_energy(searched)

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        leaves = [tensor.clone().requires_grad_() for tensor in point]
        value, slopes = 1.0, [torch.zeros_like(tensor) for tensor in point]
        for place, target in enumerate(searched):
            rows_rn = rows(leaves, place)
            explained, slope_rn = explain(rows_rn.detach(), target)
            value -= scale * target.weight * explained
            gradients = torch.autograd.grad(rows_rn, leaves, -scale * target.weight * slope_rn, allow_unused=True)
            slopes = [slope if own is None else slope + own for slope, own in zip(slopes, gradients, strict=True)]
        return value, slopes

    return minimize(error, start, sweeps)


def explain(rows_rn: Tensor, target: Target) -> tuple[float, Tensor]:
    """The output energy that the best mixing of these rows explains, and its gradient by the rows."""
    rows_c_rn = times(rows_rn, target.moment)
    cross_or = target.cross_on @ rows_rn.T
    mixing_or = mix(rows_c_rn @ rows_rn.T, cross_or)
    slope_rn = mixing_or.T @ target.cross_on - (mixing_or.T @ mixing_or) @ rows_c_rn
    return float((mixing_or * cross_or).sum()), 2 * slope_rn


def mixing(rows_rn: Tensor, target: Target) -> Tensor:
    """U (out, r) by least squares on these rows."""
    return mix(times(rows_rn, target.moment) @ rows_rn.T, target.cross_on @ rows_rn.T)
