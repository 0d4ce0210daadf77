"""Four similarities of two layers, between 0 and 1. The first predicts the cost of sharing.

`explained` is how much of one layer's output the best filters of another reproduce on real inputs. The others ignore
the data (`angles`, `cosine`) or the weights (`cka`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...core.linalg import Kronecker, Moment, times
from ...core.specs import Shape

# Damping of a basis's own Gram matrix, relative to its mean diagonal: float32 moments are rank-deficient.
_DAMPING = 1e-6


@dataclass(frozen=True)
class Kernel:
    """The data of one layer that similarities use, float64.

    Attributes:
        shape: The shape of the kernel.
        kernel_on: The kernel (out x patch).
        moment: The second moment of its inputs; None: the identity.
        gram_ee: The U-centered Gram matrix of its outputs; None: unknown.
    """

    shape: Shape
    kernel_on: Tensor
    moment: Moment | None = None
    gram_ee: Tensor | None = None

    @property
    def basis_size(self) -> int:
        """Half the rank that the kernel can have: the basis size at which sharing starts to save parameters."""
        return math.ceil(min(self.kernel_on.shape) / 2)


class Metric(Protocol):
    """The interface of a metric, a pure function. Its laws are in tests/stages/analyze/test_metric_laws.py."""

    def __call__(self, kernels: Sequence[Kernel], /) -> Tensor:
        """The similarities (kernels, kernels) between 0 and 1, float64; NaN where the metric is undefined."""
        ...


def explained(kernels: Sequence[Kernel]) -> Tensor:
    """Entry i, j: the share of layer j's output energy tr(W_j C_j W_j^T) that layer i's best basis explains under C_j.

    The basis is the r combinations of i's filters with the most output energy, r half of i's rank. Asymmetric. A layer
    without output energy is fully explained.
    """
    kernels = comparable(kernels)
    bases = [_basis(kernel) for kernel in kernels]
    if all(kernel.moment is None for kernel in kernels):
        return _explained_alike(kernels, bases)
    result = torch.ones(len(kernels), len(kernels), dtype=torch.float64)
    ends = np.cumsum([len(basis) for basis in bases])[:-1].tolist()
    for j, kernel in enumerate(kernels):
        energy = (_weighted(kernel.kernel_on, kernel.moment) * kernel.kernel_on).sum()
        if energy <= 0:
            continue
        weighted_rn = _weighted(torch.cat(bases), kernel.moment)
        for i, (basis_rn, part_rn) in enumerate(zip(bases, weighted_rn.tensor_split(ends), strict=True)):
            result[i, j] = _projected(part_rn @ basis_rn.T, part_rn @ kernel.kernel_on.T) / energy
    return result.clamp(0, 1)


def _explained_alike(kernels: Sequence[Kernel], bases: Sequence[Tensor]) -> Tensor:
    """The same where all inputs count alike. The rows of a basis are then orthogonal, and there is nothing to solve."""
    energies_r = [basis.square().sum(1) for basis in bases]
    damped_m = torch.cat([own + _DAMPING * own.mean() + 1e-30 for own in energies_r])
    stacked_mn = torch.cat(list(bases)) / damped_m.sqrt()[:, None]
    ends = np.cumsum([len(basis) for basis in bases])[:-1].tolist()
    result = torch.ones(len(kernels), len(kernels), dtype=torch.float64)
    for j, kernel in enumerate(kernels):
        energy = kernel.kernel_on.square().sum()
        if energy > 0:
            seen_m = (stacked_mn @ kernel.kernel_on.T).square().sum(1)
            result[:, j] = torch.stack([part.sum() for part in seen_m.tensor_split(ends)]) / energy
    return result.clamp(0, 1)


def _projected(gram_rr: Tensor, cross_ro: Tensor) -> Tensor:
    """tr(X^T G^-1 X), damped. Directions in which the Gram matrix is not positive, by rounding, do not count."""
    gram_rr.diagonal().add_(_DAMPING * gram_rr.diagonal().mean() + 1e-30)
    symmetric_rr = (gram_rr + gram_rr.T) / 2
    factor, failed = torch.linalg.cholesky_ex(symmetric_rr)
    if not failed:
        solved_ro: Tensor = torch.linalg.solve_triangular(factor, cross_ro, upper=False)
        return solved_ro.square().sum()
    values, vectors = torch.linalg.eigh(symmetric_rr)
    kept = values > _DAMPING * values[-1]
    explained_r: Tensor = (vectors.T @ cross_ro).square().sum(1)[kept] / values[kept]
    return explained_r.sum()


def angles(kernels: Sequence[Kernel]) -> Tensor:
    """The mean squared cosine of the principal angles between the row spaces' leading halves."""
    kernels = comparable(kernels)
    spaces_nr = [torch.linalg.qr(_basis(replace(kernel, moment=None)).T).Q for kernel in kernels]
    rows = [[((a.T @ b).square().sum() / min(a.shape[1], b.shape[1])).item() for b in spaces_nr] for a in spaces_nr]
    return torch.tensor(rows, dtype=torch.float64).clamp(0, 1)


def cka(kernels: Sequence[Kernel]) -> Tensor:
    """Debiased linear CKA of the layers' outputs on the same images (Kornblith et al. 2019; Song et al. 2012).

    NaN where the outputs of either layer are unknown.
    """
    count = len(kernels)
    result = torch.full((count, count), math.nan, dtype=torch.float64)
    grams = [(i, k.gram_ee.double().flatten()) for i, k in enumerate(kernels) if k.gram_ee is not None]
    for i, first in grams:
        for j, second in grams:
            result[i, j] = (first @ second).clamp(0, 1)
    return result


def cosine(kernels: Sequence[Kernel]) -> Tensor:
    """The cosine of the weights after the best matching of output channels (Hungarian algorithm).

    NaN between kernels of different shapes.
    """
    count = len(kernels)
    result = torch.full((count, count), math.nan, dtype=torch.float64)
    for i, first in enumerate(kernels):
        for j, second in enumerate(kernels[: i + 1]):
            if first.shape != second.shape:
                continue
            product_oo = first.kernel_on @ second.kernel_on.T
            norm = first.kernel_on.norm() * second.kernel_on.norm()
            matched = product_oo[linear_sum_assignment(product_oo.numpy(), maximize=True)].sum()
            result[i, j] = result[j, i] = (matched / norm).clamp(0, 1) if norm > 0 else 0.0
    return result


def within_width(measure: Metric) -> Metric:
    """The metric among kernels with equal numbers of input channels; NaN between others."""

    def measured(kernels: Sequence[Kernel]) -> Tensor:
        widths = torch.tensor([kernel.shape[1] for kernel in kernels])
        result = torch.full((len(kernels), len(kernels)), math.nan, dtype=torch.float64)
        for width in widths.unique():
            places = (widths == width).nonzero().flatten()
            result[places[:, None], places] = measure([kernels[place] for place in places])
        return result

    return measured


METRICS: dict[str, Metric] = {
    "explained": within_width(explained),
    "angles": within_width(angles),
    "cka": cka,
    "cosine": cosine,
}


def comparable(kernels: Sequence[Kernel]) -> Sequence[Kernel]:
    """The kernels as matrices over one space: unchanged if all patches are equal, else with taps unfolded into rows.

    An unfolded W is (out x taps, in), its inputs' moment the mean over taps of that of the channels. A matrix with more
    rows than columns is reduced to a square one by a rotation, which changes neither energies nor row spaces.
    """
    if len({kernel.shape[1:] for kernel in kernels}) > 1:
        kernels = [_by_channel(kernel) for kernel in kernels]
    return [_square(kernel) if kernel.kernel_on.shape[0] > kernel.kernel_on.shape[1] else kernel for kernel in kernels]


def _square(kernel: Kernel) -> Kernel:
    return replace(kernel, kernel_on=torch.linalg.qr(kernel.kernel_on, mode="r").R)


def _by_channel(kernel: Kernel) -> Kernel:
    channels, taps = kernel.shape[1], math.prod(kernel.shape[2:])
    kernel_otc = kernel.kernel_on.view(-1, channels, taps).transpose(1, 2)
    moment = kernel.moment
    if isinstance(moment, Kronecker):
        moment = moment.channels_cc * (moment.taps_tt.trace() / taps)
    elif moment is not None:
        moment = moment.view(channels, taps, channels, taps).diagonal(dim1=1, dim2=3).mean(-1)
    return replace(kernel, kernel_on=kernel_otc.reshape(-1, channels), moment=moment)


def _basis(kernel: Kernel) -> Tensor:
    """The best basis of a kernel's own rows: P^T W, P the leading eigenvectors of its output moment W C W^T."""
    output_oo = _weighted(kernel.kernel_on, kernel.moment) @ kernel.kernel_on.T
    leading_or: Tensor = torch.linalg.eigh((output_oo + output_oo.T) / 2).eigenvectors[:, -kernel.basis_size :]
    return leading_or.T @ kernel.kernel_on


def _weighted(x_on: Tensor, moment: Moment | None) -> Tensor:
    return x_on if moment is None else times(x_on, moment)


def centered_gram(x_ef: Tensor) -> Tensor | None:
    """The U-centered Gram matrix of examples x features, of Frobenius norm 1: inner products of two are debiased CKA.

    Plain centring overestimates wide layers on few images; this one is unbiased (Szekely and Rizzo 2014). None for
    fewer than four examples, or if all are equal.
    """
    count = len(x_ef)
    if count < 4:
        return None
    x_ef = x_ef.double() - x_ef.double().mean(0)
    gram_ee = x_ef @ x_ef.T
    gram_ee.fill_diagonal_(0)
    rows = gram_ee.sum(1) / (count - 2)
    gram_ee = gram_ee - rows[:, None] - rows + gram_ee.sum() / ((count - 1) * (count - 2))
    gram_ee.fill_diagonal_(0)
    norm = float(gram_ee.norm())
    return (gram_ee / norm).float() if norm > 0 else None
