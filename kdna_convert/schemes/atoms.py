"""Atoms: a family shares the coefficients of its kernels; each member has spatial atoms of its own.

    W[o,i,s] ~ sum_m A[o,i,m] D[m,s]          A (out x in x r) shared; D (r x taps) the member's adapter

The kernel dictionary of DCFNet (Qiu et al. 2018, arXiv 1802.04145) and Atom-Coefficient sharing (Wang et al. 2020,
arXiv 2009.02386): shared coefficients instead of shared filters. A member takes only r taps numbers, and the shared
tensor as much as r/taps kernels. Only kernels of equal out and in share, of any taps.
Parameters: r out in + r sum taps. No factored form: a kernel of r >= taps atoms takes more multiply-adds than the dense
one, so MACs do not change.
Loses to shared CP by far, to the shared basis too except for wide layers at half their parameters, and saves no
multiply-adds: there is no reason why filter o of one layer should resemble filter o of another. Layers that are nearly
equal, or an original with such coefficients, are fitted without error.

Fit: A starts from the singular vectors of the kernels side by side, (out in) x (members taps), under the mean metric.
A and D then descend together by L-BFGS, and D is solved again in closed form.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import RecipeError
from ..core.linalg import (
    Kronecker,
    Target,
    kronecker,
    mean_diagonal,
    minimize,
    mix,
    search_target,
    times,
    weighted_energy,
)
from ..core.specs import Layout, Shape, product
from .dense_limit import dense_limit
from .scheme import Scheme, Tensors


@dataclass(frozen=True)
class Atoms(Scheme):
    """Options: `rank`, the number of atoms."""

    rank: int = 0

    name: ClassVar[str] = "atoms"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[:2]

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The number of atoms at which the family stores as much as its dense kernels."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        return Layout({"A": (*shapes[0][:2], "rank")}, tuple({"D": ("rank", product(shape[2:]))} for shape in shapes))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return product(shape) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        searched = [search_target(target) for target in targets]
        scale = 1 / weighted_energy(searched)

        def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
            mixing_oim, *atoms = point
            value, slope_oim, slopes = 1.0, torch.zeros_like(mixing_oim), []
            for atoms_ms, target in zip(atoms, searched, strict=True):
                kernel_on = (mixing_oim @ atoms_ms).flatten(1)
                seen_on = times(kernel_on, target.moment)
                part = scale * target.weight
                value += part * float(((seen_on - 2 * target.cross_on) * kernel_on).sum())
                slope_ois = 2 * part * (seen_on - target.cross_on).view(*target.shape[:2], -1)
                slope_oim += slope_ois @ atoms_ms.T
                slopes.append(torch.einsum("ois,oim->ms", slope_ois, mixing_oim))
            return value, [slope_oim, *slopes]

        start = {"A": _leading_mixing(searched, self.rank)}
        atoms = [self.fit(start, {}, target)["D"] for target in searched]
        mixing_oim, *_ = minimize(error, [start["A"], *atoms], sweeps)
        shared = {"A": mixing_oim}
        return shared, [self.fit(shared, {}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """D by least squares. A long patch uses the Kronecker form of its moment: an atom has only taps unknowns."""
        searched, mixing_oim = search_target(target), shared["A"]
        cross_ois = searched.cross_on.view(*mixing_oim.shape[:2], -1)
        pull_ms = torch.einsum("oim,ois->ms", mixing_oim, cross_ois)
        atoms = mix(_normal(mixing_oim, searched), pull_ms.reshape(1, -1))
        return {"D": atoms.view(pull_ms.shape)}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (shared["A"] @ adapter["D"]).view(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return None


def _normal(mixing_oim: Tensor, target: Target) -> Tensor:
    """The normal matrix of D, (m taps) square: N[(m,s),(p,t)] = sum_oij A[o,i,m] C[(i,s),(j,t)] A[o,j,p]."""
    channels, count = mixing_oim.shape[1:]
    flat_xm = mixing_oim.reshape(-1, count)  # x = (o, i)
    if isinstance(target.moment, Kronecker):
        seen_oim = torch.einsum("ij,ojm->oim", target.moment.channels_cc, mixing_oim)
        return torch.kron(flat_xm.T @ seen_oim.reshape(-1, count), target.moment.taps_tt)
    moment_isjt = target.moment.view(channels, -1, channels, len(target.moment) // channels)
    rows = []
    for moment_ijt in moment_isjt.unbind(1):
        seen_ojtm = torch.einsum("oim,ijt->ojtm", mixing_oim, moment_ijt)
        rows.append(torch.einsum("ojtm,ojp->mpt", seen_ojtm, mixing_oim))
    return torch.stack(rows, 1).flatten(2).flatten(0, 1)


def _leading_mixing(targets: Sequence[Target], count: int) -> Tensor:
    """A (out, in, m) with unit columns: the leading singular vectors of the kernels side by side, in their mean metric.

    Raises:
        RecipeError: KD207 for more atoms than the rank of the kernels.
    """
    out, channels = targets[0].shape[:2]
    moments = [_separated(target) for target in targets]
    scaled = [moment.channels_cc / mean_diagonal(moment) for moment in moments]
    mean_cc = torch.stack(scaled).mean(0)
    parts = []
    for target, moment in zip(targets, moments, strict=True):
        values, vectors = torch.linalg.eigh(moment.taps_tt)
        root_tt = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        weight = target.weight * mean_diagonal(moment)
        parts.append(target.kernel_on.view(out, channels, -1) @ root_tt * weight**0.5)
    beside_oiz = torch.cat(parts, 2)  # z = (member, tap)
    carried = min(out * channels, beside_oiz.shape[2])
    if count > carried:
        raise RecipeError("KD207", f"rank: these kernels carry {carried} atoms, not {count}")
    seen_oiz = torch.einsum("ij,ojz->oiz", mean_cc, beside_oiz)
    gram_zz = beside_oiz.flatten(0, 1).T @ seen_oiz.flatten(0, 1)
    _, vectors = torch.linalg.eigh((gram_zz + gram_zz.T) / 2)
    mixing_oim = beside_oiz @ vectors[:, -count:].flip(1)
    norm_m = mixing_oim.flatten(0, 1).norm(dim=0)
    spare_oim = torch.eye(out * channels, count, dtype=torch.float64).view_as(mixing_oim)
    return torch.where(norm_m > 0, mixing_oim / norm_m.clamp_min(1e-300), spare_oim)


def _separated(target: Target) -> Kronecker:
    return target.moment if isinstance(target.moment, Kronecker) else kronecker(target.moment, target.shape[1])
