"""Order the directions of a family by importance, so that the leading ones are a smaller family.

    W[o,n] ~ sum_q U[o,q] R[q,n]          R (r x n): the rows that a scheme's `rows` gives, U mixes them

The error after cutting a family to k directions and fitting its mixings again follows from its Gram matrices: with
G = R C R^T and X = W C R^T, the best mixing of the first k rows explains |X[:, :k] L^-T|^2, G[:k, :k] = L L^T. So the
error at every k is known at once, and it never rises with k. The kernels at the full size do not change.

If the rows are stored as they are (basis, low rank), W = U R is a matrix product, and any invertible T gives an equal
one, U T^-1 and T R: T is chosen so that the leading rows carry the most energy under the mean moment of the family.
Rows made of several tensors (CP) can only be permuted: they are eliminated backwards, each time the one that costs
least with all mixings fitted again (the closed form of stepwise regression, as in optimal brain surgery, Hassibi and
Stork 1993).
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
    """A family's tensors with its directions in order.

    Attributes:
        shared: The shared tensors.
        adapters: The tensors of each member.
        errors: The weighted output error of the first 1, 2, ... directions, with mixings fitted.
    """

    shared: Tensors
    adapters: list[Tensors]
    errors: tuple[float, ...]


def is_product(shared: Tensors, adapter: Tensors) -> bool:
    """Whether the kernels are products U V of two stored matrices: once ordered, these can be cut without a fit."""
    return {*shared, *adapter} == {"U", "V"}


def order(scheme: CuttableScheme, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]) -> Ordered:
    """Order the directions by their importance to the targets; the kernels stay the same. Float64.

    Raises:
        NumericsError: KD703 for rows that are not finite.
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
    """The weighted output error of the first 1, 2, ... directions in their present order, with mixings fitted."""
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
    """The directions at these places, selected along every axis that the layout names by the size option."""
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
    """R C R^T and X^T X of each member (members x r x r), which determine the order."""
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
    """The order of the directions: the one eliminated last comes first.

    With P = G^-1 and H = P X^T X P, the Gram matrix of the mixings, eliminating q costs H[q,q] / P[q,q] in each member.
    A rank-one update then gives both matrices for the remaining directions.
    """
    inverse_lrr = torch.cholesky_inverse(_cholesky(grams_lrr))
    mixed_lrr = inverse_lrr @ pulls_lrr @ inverse_lrr
    eliminated_r = torch.zeros(grams_lrr.shape[1], dtype=torch.bool)
    places: list[int] = []
    for _ in range(len(eliminated_r)):
        spread_lr = inverse_lrr.diagonal(dim1=1, dim2=2).clamp_min(TINY)
        cost_r = weights_l @ (mixed_lrr.diagonal(dim1=1, dim2=2) / spread_lr)
        q = int(cost_r.masked_fill(eliminated_r, torch.inf).argmin())
        places.append(q)
        eliminated_r[q] = True
        step_lr = inverse_lrr[:, q] / spread_lr[:, q, None]
        crossed_lrr = step_lr[:, :, None] * mixed_lrr[:, q, None, :]
        squared_lrr = step_lr[:, :, None] * step_lr[:, None, :] * mixed_lrr[:, q, q, None, None]
        mixed_lrr = mixed_lrr - crossed_lrr - crossed_lrr.mT + squared_lrr
        inverse_lrr = inverse_lrr - step_lr[:, :, None] * inverse_lrr[:, q, None, :]
    return torch.tensor(places[::-1])


def _rotated(
    shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target]
) -> tuple[Tensors, Sequence[Tensors]]:
    """U T^-1 and T V, with the rows of T V uncorrelated under the mean moment, of unit length, by falling energy."""
    if "V" in shared:
        rows_rn, mixings = _rotated_rows(shared["V"], [adapter["U"] for adapter in adapters], targets)
        return {**shared, "V": rows_rn}, [{**a, "U": u} for a, u in zip(adapters, mixings, strict=True)]
    rotated = [_rotated_rows(a["V"], [a["U"]], [target]) for a, target in zip(adapters, targets, strict=True)]
    return shared, [{"U": mixings[0], "V": rows_rn} for rows_rn, mixings in rotated]


def _rotated_rows(rows_rn: Tensor, mixings: Sequence[Tensor], targets: Sequence[Target]) -> tuple[Tensor, list[Tensor]]:
    means = [mean_diagonal(target.moment) for target in targets]
    moment_rn = torch.stack(
        [times(rows_rn, target.moment) / mean for target, mean in zip(targets, means, strict=True)]
    ).mean(0)
    (factor_rr,) = _cholesky((moment_rn @ rows_rn.T)[None])
    carried_rr = torch.stack(
        [target.weight * mean * mixing.T @ mixing for target, mean, mixing in zip(targets, means, mixings, strict=True)]
    ).sum(0)
    _, vectors = torch.linalg.eigh(factor_rr.T @ carried_rr @ factor_rr)
    vectors = vectors.flip(1)
    rotated_rn = vectors.T @ torch.linalg.solve_triangular(factor_rr, rows_rn, upper=False)
    length_r1 = rotated_rn.norm(dim=1, keepdim=True).clamp_min(TINY)
    return rotated_rn / length_r1, [mixing @ factor_rr @ vectors * length_r1.T for mixing in mixings]
