"""The directions of a family in the order of their worth, so that the leading ones are a smaller family.

    W[o,n] ~ sum_q U[o,q] R[q,n]          R (r x n): the rows that a scheme's `rows` gives, U mixes them

Cutting a family to k directions and fitting its mixings again leaves an error that its Gram matrices alone decide: with
G = R C R^T and X = W C R^T, the best mixing of the first k rows explains |X[:, :k] L^-T|^2, G[:k, :k] = L L^T. So the
error at every k is known at once, and never rises with k. Nothing is lost at the full size: the kernels are the same.

Where the rows are stored as they are (basis, low rank), W = U R is a matrix product, and any invertible T turns it into
another, U T^-1 and T R: T makes the leading rows those that carry most, under the mean moment of the family. Rows that
are made of several tensors (CP) can only be put in another order: they are eliminated backwards, each time the one
whose loss costs least with all mixings fitted again (the closed form of stepwise regression, as in optimal brain
surgery, Hassibi and Stork 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import NumericsError
from ...core.linalg import JITTER, TINY, Target, mean_diagonal, times
from ...core.specs import SymbolicShape
from ...schemes import CuttableScheme, Scheme, Tensors


@dataclass(frozen=True)
class Ordered:
    """A family's tensors with its directions in order, and `errors`: what is left of the targets' weighted output
    energy by the first 1, 2, ... directions, their mixings fitted."""

    shared: Tensors
    adapters: list[Tensors]
    errors: tuple[float, ...]


def is_product(shared: Tensors, adapter: Tensors) -> bool:
    """Whether the kernels are U V of two stored matrices: once in order, these can be cut without a fit."""
    return {*shared, *adapter} == {"U", "V"}


def order(scheme: CuttableScheme, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]) -> Ordered:
    """The same kernels, the directions that matter most to the targets first; float64.

    Raises NumericsError KD703 for rows that are not finite.
    """
    shapes = [target.shape for target in targets]
    if is_product(shared, adapters[0]):
        shared, adapters = _rotated(shared, adapters, targets)
    else:
        grams_lrr, pulls_lrr = _normal(scheme, shared, adapters, targets)
        places = _eliminate(grams_lrr, pulls_lrr, _weights(targets))
        shared, adapters = _taken(scheme, shapes, shared, adapters, places)
    return Ordered(shared, list(adapters), errors(scheme, shared, adapters, targets))


def errors(
    scheme: CuttableScheme, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]
) -> tuple[float, ...]:
    """The weighted output error of the first 1, 2, ... directions as they stand, their mixings fitted."""
    grams_lrr, pulls_lrr = _normal(scheme, shared, adapters, targets)
    left = torch.linalg.solve_triangular(_cholesky(grams_lrr), pulls_lrr, upper=False)
    explained_lrr = torch.linalg.solve_triangular(_cholesky(grams_lrr), left.mT, upper=False)
    explained_r = torch.einsum("l,lrr->r", _weights(targets), explained_lrr).cumsum(0)
    energy = sum(target.weight * target.energy for target in targets)
    return tuple((energy - explained_r).clamp_min(0).tolist())


def leading(
    scheme: Scheme, shapes: Sequence[tuple[int, ...]], shared: Tensors, adapters: Sequence[Tensors], size: int
) -> tuple[Tensors, list[Tensors]]:
    """The tensors of the first `size` directions."""
    return _taken(scheme, shapes, shared, adapters, torch.arange(size))


def _taken(
    scheme: Scheme,
    shapes: Sequence[tuple[int, ...]],
    shared: Tensors,
    adapters: Sequence[Tensors],
    places: Tensor,
) -> tuple[Tensors, list[Tensors]]:
    """These directions: along every axis that the scheme's layout names by its size option."""
    layout = scheme.layout(shapes)

    def part(tensors: Tensors, axes: dict[str, SymbolicShape]) -> Tensors:
        for letter, tensor in tensors.items():
            for axis, name in enumerate(axes[letter]):
                tensor = tensor.index_select(axis, places.to(tensor.device)) if name == scheme.size else tensor
            tensors = {**tensors, letter: tensor}
        return tensors

    own = [part(adapter, axes) for adapter, axes in zip(adapters, layout.adapters, strict=True)]
    return part(shared, layout.shared), own


def _normal(
    scheme: CuttableScheme, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]
) -> tuple[Tensor, Tensor]:
    """R C R^T and X^T X of each member, (members x r x r): all that an order depends on."""
    grams, pulls = [], []
    for adapter, target in zip(adapters, targets, strict=True):
        rows_rn = scheme.rows(shared, adapter, target.shape)
        cross_or = target.cross_on @ rows_rn.T
        grams.append(times(rows_rn, target.moment) @ rows_rn.T)
        pulls.append(cross_or.T @ cross_or)
    return torch.stack(grams), torch.stack(pulls)


def _weights(targets: Sequence[Target]) -> Tensor:
    return torch.tensor([target.weight for target in targets], dtype=torch.float64)


def _cholesky(grams_lrr: Tensor) -> Tensor:
    spread_l = grams_lrr.diagonal(dim1=1, dim2=2).mean(1)
    jittered = grams_lrr + torch.diag_embed((JITTER * spread_l + TINY)[:, None].expand(grams_lrr.shape[:2]))
    factors: Tensor
    factors, failed = torch.linalg.cholesky_ex(jittered)
    if failed.any():
        raise NumericsError("KD703", "a family's directions cannot be ordered: their Gram matrix is not finite")
    return factors


def _eliminate(grams_lrr: Tensor, pulls_lrr: Tensor, weights_l: Tensor) -> Tensor:
    """The directions, the one eliminated last first.

    With P = G^-1 and H = P X^T X P, the Gram matrix of the mixings, losing q costs H[q,q] / P[q,q] in each member;
    then both take a step of rank one to those of the directions left.
    """
    inverse_lrr = torch.cholesky_inverse(_cholesky(grams_lrr))
    mixed_lrr = inverse_lrr @ pulls_lrr @ inverse_lrr
    lost_r = torch.zeros(grams_lrr.shape[1], dtype=torch.bool)
    places: list[int] = []
    for _ in range(len(lost_r)):
        spread_lr = inverse_lrr.diagonal(dim1=1, dim2=2).clamp_min(TINY)
        cost_r = weights_l @ (mixed_lrr.diagonal(dim1=1, dim2=2) / spread_lr)
        q = int(cost_r.masked_fill(lost_r, torch.inf).argmin())
        places.append(q)
        lost_r[q] = True
        step_lr = inverse_lrr[:, q] / spread_lr[:, q, None]
        crossed_lrr = step_lr[:, :, None] * mixed_lrr[:, q, None, :]
        squared_lrr = step_lr[:, :, None] * step_lr[:, None, :] * mixed_lrr[:, q, q, None, None]
        mixed_lrr = mixed_lrr - crossed_lrr - crossed_lrr.mT + squared_lrr
        inverse_lrr = inverse_lrr - step_lr[:, :, None] * inverse_lrr[:, q, None, :]
    return torch.tensor(places[::-1])


def _rotated(
    shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]
) -> tuple[Tensors, Sequence[Tensors]]:
    """U T^-1 and T V with the rows of T V uncorrelated under the mean moment and by falling energy, of unit length."""
    if "V" in shared:
        rows_rn, mixings = _turned(shared["V"], [adapter["U"] for adapter in adapters], targets)
        return {**shared, "V": rows_rn}, [{**a, "U": u} for a, u in zip(adapters, mixings, strict=True)]
    turned = [_turned(a["V"], [a["U"]], [target]) for a, target in zip(adapters, targets, strict=True)]
    return shared, [{"U": mixings[0], "V": rows_rn} for rows_rn, mixings in turned]


def _turned(rows_rn: Tensor, mixings: Sequence[Tensor], targets: Sequence[Target]) -> tuple[Tensor, list[Tensor]]:
    means = [mean_diagonal(target.moment) for target in targets]
    seen_rn = torch.stack(
        [times(rows_rn, target.moment) / mean for target, mean in zip(targets, means, strict=True)]
    ).mean(0)
    (factor_rr,) = _cholesky((seen_rn @ rows_rn.T)[None])
    carried_rr = torch.stack(
        [target.weight * mean * mixing.T @ mixing for target, mean, mixing in zip(targets, means, mixings, strict=True)]
    ).sum(0)
    _, vectors = torch.linalg.eigh(factor_rr.T @ carried_rr @ factor_rr)
    vectors = vectors.flip(1)
    turned_rn = vectors.T @ torch.linalg.solve_triangular(factor_rr, rows_rn, upper=False)
    length_r1 = turned_rn.norm(dim=1, keepdim=True).clamp_min(TINY)
    return turned_rn / length_r1, [mixing @ factor_rr @ vectors * length_r1.T for mixing in mixings]
