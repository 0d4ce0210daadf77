"""Shared CP: a family shares one pointwise bank V; each member adds its own spatial kernels b and its mixing U.

    W[o,i,s] ~ sum_q U[o,q] V[q,i] b[q,s]          V (r x in) shared; b (r x taps) and U (out x r) the member's adapter

KernelDNA's idea (arXiv 2503.23379: parent x spatial modulation x filter modulation) with enough freedom to fit a
pretrained kernel. The form is a canonical polyadic decomposition whose input factor is shared by the layers.
Parameters: r in + r sum(out + taps). Folded, a member is an ordinary convolution. Factored (1x1, depthwise, 1x1), it
takes r (in + taps + out) multiply-adds per position. A 1x1 kernel has no b: for it the scheme is the shared basis.
Loses if kernels are not spatially low rank (a single tap, or a stem), and if a family has one narrow member.

Fit, by variable projection (Golub and Pereyra 1973): U is the closed-form least-squares mixing of the rows V[q] x b[q],
so the error is a function of V and b alone, which L-BFGS minimizes by its exact gradient. Compared with alternating
least squares and Adam in docs/decisions/0002-fitting-shared-cp.md. Kernels with long patches are searched in the
Kronecker form of their moment; their U is then solved in the full one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from ..core.linalg import (
    TINY,
    Kronecker,
    Single,
    Target,
    minimize,
    mix,
    mix_with_ridge,
    search_target,
    single,
    times,
    weighted_energy,
)
from ..core.specs import Layout, Shape, product
from .basis import Basis
from .dense_limit import dense_limit
from .scheme import CuttableScheme, Tensors


@dataclass(frozen=True)
class Cp(CuttableScheme):
    """Options: `rank`, the number of rows of the shared bank."""

    rank: int = 0

    name: ClassVar[str] = "cp"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[1], product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, tuple[int | str, ...]]:
            spatial: dict[str, tuple[int | str, ...]] = {"b": ("rank", *shape[2:])} if _spatial(shape) else {}
            return {"U": (shape[0], "rank"), **spatial}

        return Layout({"V": ("rank", shapes[0][1])}, tuple(map(adapter, shapes)))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        pointwise_in = in_positions if _spatial(shape) else out_positions
        return self.rank * (shape[1] * pointwise_in + (_spatial(shape) + shape[0]) * out_positions)

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        if not any(_spatial(target.shape) for target in targets):
            return Basis(self.rank).share(targets, seed=seed, sweeps=sweeps)
        bank_ri, *spatials = _start(targets, self.rank, seed)
        pairs = zip(spatials, targets, strict=True)
        adapters = [{"b": own.view(len(own), *t.shape[2:])} if _spatial(t.shape) else {} for own, t in pairs]
        return self.refine({"V": bank_ri}, adapters, targets, sweeps)

    def refine(
        self, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target], sweeps: int
    ) -> tuple[Tensors, list[Tensors]]:
        if not any(_spatial(target.shape) for target in targets):
            return Basis(self.rank).refine(shared, adapters, targets, sweeps)
        searched = [_searched(target) for target in targets]
        singles = [single(target) for target in searched]
        start = [shared["V"], *(_flat_spatial(shared["V"], adapter) for adapter in adapters)]
        scale = 1 / weighted_energy(searched)
        bank_ri, *spatials = minimize(lambda point: search_error(point, singles, scale), start, sweeps)
        shared = {"V": bank_ri}
        adapters = [
            {"b": spatial.view(self.rank, *target.shape[2:])} if _spatial(target.shape) else {}
            for spatial, target in zip(spatials, targets, strict=True)
        ]
        return shared, [self.fit(shared, adapter, target) for adapter, target in zip(adapters, targets, strict=True)]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares on the member's rows V[q] x b[q]."""
        rows_rn = self.rows(shared, adapter, target.shape)
        gram_rr = times(rows_rn, target.moment) @ rows_rn.T
        return {**adapter, "U": mix(gram_rr, target.cross_on @ rows_rn.T)}

    def rows(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return _rows(shared["V"], _flat_spatial(shared["V"], adapter))

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        ones = (1,) * len(shape[2:])
        chain = [shared["V"].view(*shared["V"].shape, *ones), adapter["U"].view(*adapter["U"].shape, *ones)]
        return [chain[0], adapter["b"].unsqueeze(1), chain[1]] if "b" in adapter else chain


def _spatial(shape: Shape) -> int:
    """The parameters of one spatial kernel: 0 for a single tap."""
    taps = product(shape[2:])
    return taps if taps > 1 else 0


def _flat_spatial(bank_ri: Tensor, adapter: Tensors) -> Tensor:
    return adapter["b"].flatten(1) if "b" in adapter else bank_ri.new_ones(len(bank_ri), 1)


def _rows(bank_ri: Tensor, spatial_rs: Tensor) -> Tensor:
    return (bank_ri[:, :, None] * spatial_rs[:, None, :]).flatten(1)


def _searched(target: Target) -> Target:
    if product(target.shape[2:]) == 1 and isinstance(target.moment, Tensor):
        if "taps of one" not in target.memo:
            exact = Kronecker(target.moment, target.moment.new_ones(1, 1))
            target.memo["taps of one"] = replace(target, moment=exact)
        return cast("Target", target.memo["taps of one"])
    return search_target(target)


def _start(targets: Sequence[Target], rank: int, seed: int) -> list[Tensor]:
    """A random bank in the directions that the kernels read most, and random spatial kernels, with unit rows."""
    generator = torch.Generator().manual_seed(seed)
    bank_ri = bank_start(targets, rank, generator)
    spatials = [
        torch.randn(rank, product(target.shape[2:]), generator=generator, dtype=torch.float64) for target in targets
    ]
    spatials = [torch.ones_like(spatial) if spatial.shape[1] == 1 else spatial for spatial in spatials]
    return [bank_ri, *map(_unit_rows, spatials)]


def bank_start(targets: Sequence[Target], rank: int, generator: torch.Generator) -> Tensor:
    """Random rows (rank, in) of unit length, in the directions that the family's kernels read most."""
    channels = targets[0].shape[1]
    reads_ii = torch.zeros(channels, channels, dtype=torch.float64)
    for target in targets:
        kernel_ois = target.kernel_on.view(len(target.kernel_on), channels, -1)
        reads = torch.einsum("ois,ojs->ij", kernel_ois, kernel_ois)
        reads_ii += target.weight * reads
    values, vectors_ii = torch.linalg.eigh(reads_ii)
    spread_i = values.clamp_min(0).sqrt() + 1e-3 * values.clamp_min(TINY).max().sqrt()
    bank_ri = torch.randn(rank, channels, generator=generator, dtype=torch.float64) * spread_i @ vectors_ii.T
    return _unit_rows(bank_ri)


def _unit_rows(rows: Tensor) -> Tensor:
    norm_r1: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norm_r1.clamp_min(1e-12)


def search_error(point: Sequence[Tensor], targets: Sequence[Single], scale: float) -> tuple[float, list[Tensor]]:
    """The weighted output error of the best mixings times `scale`, and its gradients, float64.

    Args:
        point: The bank V (r, in) and each member's spatial kernels b (r, taps).
        targets: The members' targets.
        scale: The inverse of the family's weighted energy, for a relative error.
    """
    bank_ri, *spatials = (tensor.to(targets[0].kernel_on.dtype) for tensor in point)
    value, slope_ri, slopes = 0.0, torch.zeros_like(point[0]), []
    for spatial_rs, target in zip(spatials, targets, strict=True):
        own, by_bank, by_spatial = _error(bank_ri, spatial_rs, target)
        value += scale * target.weight * own
        slope_ri += scale * target.weight * by_bank.double()
        slopes.append(scale * target.weight * by_spatial.double())
    return value, [slope_ri, *slopes]


def _error(bank_ri: Tensor, spatial_rs: Tensor, target: Single) -> tuple[float, Tensor, Tensor]:
    """The output error at the best mixing of the rows, and its gradients by the bank and the spatials.

    With the residual D = W - U rows it is <D C, D> + <2 D - W, beyond>. It is summed as such: as a difference of two
    energies, a small error would be lost in the rounding of float32. The ridge of `mix_with_ridge` is added, so that U
    is the exact minimum and the gradient by the rows is the one with U held fixed.
    """
    rows_rn = _rows(bank_ri, spatial_rs)
    if isinstance(target.moment, Kronecker):
        bank_c_ri, spatial_c_rs = bank_ri @ target.moment.channels_cc, spatial_rs @ target.moment.taps_tt
        channels_rr, taps_rr = bank_c_ri @ bank_ri.T, spatial_c_rs @ spatial_rs.T
        by_norm = bank_c_ri * taps_rr.diagonal()[:, None], spatial_c_rs * channels_rr.diagonal()[:, None]
        normal_rr = channels_rr * taps_rr
    else:
        rows_c_rn = rows_rn @ target.moment
        by_norm = _by_factors(rows_c_rn, bank_ri, spatial_rs)
        normal_rr = rows_c_rn @ rows_rn.T
    mixing_or, jitter = mix_with_ridge(normal_rr, target.cross_on @ rows_rn.T)
    left_on = torch.addmm(target.kernel_on, mixing_or, rows_rn, alpha=-1)
    slope_on = times(left_on, target.moment).add_(target.beyond_on)
    error = (left_on * slope_on + (left_on - target.kernel_on) * target.beyond_on).sum(dtype=torch.float64)
    ridge = jitter / len(bank_ri) * mixing_or.square().sum(dtype=torch.float64)
    by_error = _by_factors(mixing_or.T @ slope_on, bank_ri, spatial_rs)
    by_bank, by_spatial = (2 * (float(ridge) * norm - own) for norm, own in zip(by_norm, by_error, strict=True))
    fixed = spatial_rs.shape[1] == 1
    return float(error + ridge * normal_rr.trace()), by_bank, torch.zeros_like(spatial_rs) if fixed else by_spatial


def _by_factors(slope_rn: Tensor, bank_ri: Tensor, spatial_rs: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient by the rows V[q] x b[q] as the gradients by V and by b."""
    slope_ris = slope_rn.view(len(bank_ri), bank_ri.shape[1], -1)
    return torch.einsum("ris,rs->ri", slope_ris, spatial_rs), torch.einsum("ris,ri->rs", slope_ris, bank_ri)
