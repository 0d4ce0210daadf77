"""Shared basis: a family shares r filters V, and each member mixes them with its own U.

    W[o,n] ~ sum_q U[o,q] V[q,n]          V (r x n) shared, n = in x taps; U (out x r) the member's adapter

Basis Sharing (ICLR 2025, arXiv 2410.03765, for language models) and learned filter bases (ICCV 2019), fitted to data:
the error is that of the outputs under each member's own second moment.
Parameters: r n + r sum out. Folded, a member is an ordinary convolution. Factored (r filters, then 1x1), it takes
r (n + out) multiply-adds per position.
Loses to shared CP if kernels have several taps: a row of V takes n parameters, a CP row in + taps.

Fit: V starts from the singular vectors of the stacked kernels under the mean moment. Then variable projection, as in
cp.py: U is solved in closed form, and V moves along the exact gradient by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import RecipeError
from ..core.linalg import Target, dense, mean_diagonal, minimize, mix, search_target, times, weighted_energy
from ..core.specs import Layout, Shape, product
from .dense_limit import dense_limit
from .scheme import CuttableScheme, Tensors


@dataclass(frozen=True)
class Basis(CuttableScheme):
    """Options: `rank`, the number of shared filters."""

    rank: int = 0

    name: ClassVar[str] = "basis"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[1], product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels, never more than the rank of these."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        return Layout({"V": ("rank", product(shapes[0][1:]))}, tuple({"U": (shape[0], "rank")} for shape in shapes))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return self.rank * (product(shape[1:]) + shape[0]) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        start_rn = leading_rows(targets, self.rank)
        return self.refine({"V": start_rn}, [{} for _ in targets], targets, 0 if len(targets) == 1 else sweeps)

    def refine(
        self, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target], sweeps: int
    ) -> tuple[Tensors, list[Tensors]]:

        def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
            (basis_rn,) = point
            value, slope_rn = 1.0, torch.zeros_like(basis_rn)
            for target in searched:
                basis_c_rn = times(basis_rn, target.moment)
                cross_or = target.cross_on @ basis_rn.T
                mixing_or = mix(basis_c_rn @ basis_rn.T, cross_or)
                value -= scale * target.weight * float((mixing_or * cross_or).sum())
                gap_rn = mixing_or.T @ target.cross_on - (mixing_or.T @ mixing_or) @ basis_c_rn
                slope_rn -= 2 * scale * target.weight * gap_rn
            return value, [slope_rn]

        searched = [search_target(target) for target in targets]
        scale = 1 / weighted_energy(searched)
        shared = {"V": minimize(error, [shared["V"]], sweeps)[0] if sweeps else shared["V"]}
        return shared, [self.fit(shared, {}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        basis_rn = shared["V"]
        return {"U": mix(times(basis_rn, target.moment) @ basis_rn.T, target.cross_on @ basis_rn.T)}

    def rows(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return shared["V"]

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return two_factors(adapter["U"], shared["V"], shape)


def two_factors(mixing_or: Tensor, basis_rn: Tensor, shape: Shape) -> list[Tensor]:
    """The chain of r filters of the kernel's own size and a pointwise mixing."""
    return [basis_rn.view(len(basis_rn), *shape[1:]), mixing_or.view(*mixing_or.shape, *(1,) * len(shape[2:]))]


def leading_rows(targets: Sequence[Target], rank: int) -> Tensor:
    """The r directions with most of the weighted output energy of all kernels, under the targets' mean moment.

    For one target this is the exact truncated fit (Eckart and Young in the output metric). It is computed on the
    smaller side of the stacked kernels M: the eigenvectors E of M C M^T give the rows E^T M; those of
    C^1/2 M^T M C^1/2 need no M. A direction without energy is a unit row too, so that training can use it.

    Returns:
        Rows of unit length, (rank, n).

    Raises:
        RecipeError: KD207 for more rows than the rank of the stacked kernels.
    """
    stacked = torch.cat([target.kernel_on * target.weight**0.5 for target in targets])
    if rank > min(stacked.shape):
        raise RecipeError("KD207", f"rank: kernels of {tuple(stacked.shape)} carry {min(stacked.shape)}, not {rank}")
    moments = [target.moment for target in targets]
    if len(stacked) <= stacked.shape[1]:
        applied = torch.stack([times(stacked, moment) / mean_diagonal(moment) for moment in moments]).sum(0)
        _, vectors = torch.linalg.eigh(applied @ stacked.T)
        rows_rn = vectors[:, -rank:].T.flip(0) @ stacked
    else:
        mean_nn = torch.stack([dense(moment) / mean_diagonal(moment) for moment in moments]).mean(0)
        values, vectors = torch.linalg.eigh(mean_nn)
        root = values.clamp_min(values.max() * 1e-12).sqrt()
        half_nn = (vectors * root) @ vectors.T
        _, leading = torch.linalg.eigh(half_nn @ (stacked.T @ stacked) @ half_nn)
        rows_rn = leading[:, -rank:].T.flip(0) @ (vectors / root) @ vectors.T
    norm_r1 = rows_rn.norm(dim=1, keepdim=True)
    spare_rn = torch.eye(*rows_rn.shape, dtype=torch.float64)
    return torch.where(norm_r1 > 0, rows_rn / norm_r1, spare_rn)
