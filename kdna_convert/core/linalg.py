"""Tensor mathematics: second moments, weighted least squares in normal form, and L-BFGS for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

import torch
from scipy.optimize import OptimizeResult
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from .errors import NumericsError
from .specs import Shape

# Relative to the mean diagonal. DAMPING regularizes a moment of too few patches; JITTER only keeps the Cholesky
# factorization from failing.
DAMPING = 1e-4
JITTER = 1e-9
# The same for products in float32, whose rounding makes a nearly singular matrix indefinite: the first that is enough.
JITTERS_SINGLE = (1e-6, 1e-5, 1e-4, 1e-3)
# A search stops when PATIENCE iterations lowered the error by less than this share of it.
GAIN, PATIENCE = 0.0005, 10
# The smallest positive number: avoids a division by zero where a kernel is all zeros.
TINY: float = torch.finfo(torch.float64).tiny
# Below this mean diagonal, the rounding of float32's subnormal numbers makes a moment indefinite.
VANISHED = 1e-36
# For longer patches, shared tensors are searched with the Kronecker form of the moment.
FULL_METRIC_PATCH = 1200


class Kronecker(NamedTuple):
    """A second moment of patches as two factors: C[(i,s),(j,t)] ~ channels[i,j] taps[s,t]."""

    channels_cc: Tensor
    taps_tt: Tensor


Moment = Tensor | Kronecker


@dataclass(frozen=True)
class Target:
    """The least-squares problem of one member of a family, in normal form, float64.

    The plain fit has cross_on = W C; the data-free one has C = I.

    Attributes:
        shape: The kernel's, (out, in / groups, *taps).
        kernel_on: The original kernel W, (out, patch).
        cross_on: E[y u^T], (out, patch), of the layer's outputs y and input patches u.
        moment: C = E[u u^T], (patch, patch), of the input patches.
        weight: The sensitivity of the loss to the layer's output error.
        bound: Of a layer that standardizes its weight: the largest deviation of its kernel (core/standardize.py).
    """

    shape: Shape
    kernel_on: Tensor
    cross_on: Tensor
    moment: Moment
    weight: float
    bound: float | None = None

    @cached_property
    def energy(self) -> float:
        """E[y . y] of the layer's output, without the bias."""
        return float((self.cross_on * self.kernel_on).sum())

    @cached_property
    def memo(self) -> dict[Hashable, object]:
        """What was computed from this target alone and is used by several fits, kept as long as the target."""
        return {}


def plain_target(kernel: Tensor, moment: Moment, weight: float, count: int = 0) -> Target:
    """The target whose exact solution is the original kernel, with a damped moment.

    `count` is the number of patches that the moment is the mean of, 0 for an exact moment. The fewer patches there are
    for their length, the more the moment is mixed with its own Kronecker form.
    """
    kernel_on = kernel.double().flatten(1)
    damped = damp(moment)
    if count and isinstance(damped, Tensor):
        own = len(damped) / (len(damped) + count)
        damped = (1 - own) * damped + own * dense(kronecker(damped, kernel.shape[1]))
    return Target(tuple(kernel.shape), kernel_on, times(kernel_on, damped), damped, weight)


def damp(moment: Moment, amount: float = DAMPING) -> Moment:
    """The moment in float64, symmetric, with `amount` of its mean diagonal added to the diagonal.

    The moment of inputs that are all zero, or too small for float32 to hold their squares, becomes the identity.
    """
    if isinstance(moment, Kronecker):
        return Kronecker(_damped(moment.channels_cc, amount), _damped(moment.taps_tt, amount))
    return _damped(moment, amount)


def _damped(moment: Tensor, amount: float) -> Tensor:
    exact = moment.double()
    damped = (exact + exact.T).div_(2)
    mean = float(damped.diagonal().mean())
    damped.diagonal().add_(amount * mean if mean > VANISHED else 1.0)
    return damped


def search_target(target: Target) -> Target:
    """The target for the search of shared tensors. Adapters are then solved for the original target.

    For a long patch the moment is replaced by its Kronecker form: far cheaper, slightly less exact (decision 0003).
    """
    if isinstance(target.moment, Kronecker) or len(target.moment) <= FULL_METRIC_PATCH:
        return target
    if "search" not in target.memo:
        moment = kronecker(target.moment, target.shape[1])
        changed_on = times(target.kernel_on, moment) - times(target.kernel_on, target.moment)
        target.memo["search"] = replace(target, moment=moment, cross_on=target.cross_on + changed_on)
    return cast("Target", target.memo["search"])


class Single(NamedTuple):
    """A target in float32, for long products: kernels in units of `size`, moments of a mean diagonal of 1.

    `beyond_on` is the cross moment less that of the kernel W. `weight` is that of an error in these units.
    """

    kernel_on: Tensor
    cross_on: Tensor
    beyond_on: Tensor
    moment: Moment
    size: float
    weight: float


def single(target: Target) -> Single:
    """The target in float32, made once."""
    if "single" not in target.memo:
        mean, size = mean_diagonal(target.moment), float(target.kernel_on.square().mean().sqrt()) or 1.0
        beyond_on = target.cross_on - times(target.kernel_on, target.moment)
        kernel_on, cross_on, beyond_on = (
            part.float()
            for part in (target.kernel_on / size, target.cross_on / (size * mean), beyond_on / (size * mean))
        )
        weight = target.weight * size**2 * mean
        target.memo["single"] = Single(kernel_on, cross_on, beyond_on, _rounded(target.moment), size, weight)
    return cast("Single", target.memo["single"])


def _rounded(moment: Moment) -> Moment:
    """The moment in float32, with a mean diagonal of 1."""
    if isinstance(moment, Kronecker):
        return Kronecker(*((factor / factor.diagonal().mean()).float() for factor in moment))
    return (moment / moment.diagonal().mean()).float()


def kronecker(moment_nn: Tensor, channels: int) -> Kronecker:
    """The partial traces of a moment, scaled so that their Kronecker product has the same trace."""
    moment_isjt = moment_nn.view(channels, -1, channels, len(moment_nn) // channels)
    channels_cc = torch.einsum("isjs->ij", moment_isjt) / moment_isjt.shape[1]
    taps_tt = torch.einsum("isit->st", moment_isjt)
    return Kronecker(channels_cc.contiguous(), taps_tt * (len(taps_tt) / taps_tt.trace().clamp_min(TINY)))


def times(x_on: Tensor, moment: Moment) -> Tensor:
    """X C for X of shape (rows, n)."""
    if isinstance(moment, Kronecker):
        x_oit = x_on.unflatten(1, (len(moment.channels_cc), len(moment.taps_tt)))
        return torch.einsum("oit,ij,ts->ojs", x_oit, moment.channels_cc, moment.taps_tt).flatten(1)
    return x_on @ moment


def times_inverse(x_on: Tensor, moment: Moment) -> Tensor:
    """X C^-1 for X of shape (rows, n) and a damped moment. Raises NumericsError KD703."""
    if not isinstance(moment, Kronecker):
        return mix(moment, x_on)
    x_oit = x_on.unflatten(1, (len(moment.channels_cc), len(moment.taps_tt)))
    by_channel = mix(moment.channels_cc, x_oit.transpose(1, 2).flatten(0, 1)).unflatten(0, x_oit.shape[::2])
    return mix(moment.taps_tt, by_channel.transpose(1, 2).flatten(0, 1)).view_as(x_on)


def dense(moment: Moment) -> Tensor:
    """The n x n matrix of a moment."""
    return torch.kron(*moment) if isinstance(moment, Kronecker) else moment


def mean_diagonal(moment: Moment) -> float:
    """The mean second moment of a patch entry."""
    if isinstance(moment, Kronecker):
        return float(moment.channels_cc.diagonal().mean() * moment.taps_tt.diagonal().mean())
    return float(moment.diagonal().mean())


def mix(gram_rr: Tensor, cross_or: Tensor) -> Tensor:
    """U = cross gram^-1: least-squares coefficients for a basis with this Gram matrix. Raises NumericsError KD703."""
    return mix_with_ridge(gram_rr, cross_or)[0]


def mix_with_ridge(gram_rr: Tensor, cross_or: Tensor) -> tuple[Tensor, float]:
    """U as by `mix`, and the jitter that it took, relative to the mean diagonal of the Gram matrix.

    U is the exact minimum of the least-squares error plus this jitter times the mean diagonal times |U|^2.
    """
    mean = gram_rr.diagonal().mean()
    for jitter in (JITTER,) if gram_rr.dtype == torch.float64 else JITTERS_SINGLE:
        raised_rr = gram_rr.clone()
        raised_rr.diagonal().add_(jitter * mean + torch.finfo(gram_rr.dtype).tiny)
        factor, failed = torch.linalg.cholesky_ex(raised_rr)
        if not failed:
            return torch.cholesky_solve(cross_or.T, factor).T, jitter
    raise NumericsError("KD703", "a least-squares fit is singular; lower the rank or calibrate on more images")


def inverse_factor(moment_nn: Tensor) -> Tensor:
    """The upper triangular R with C^-1 = R^T R, for a damped moment C. Raises NumericsError KD703."""
    factor_nn, failed = torch.linalg.cholesky_ex(moment_nn)
    upper_nn: Tensor = factor_nn
    del factor_nn
    if not failed:
        upper_nn = torch.cholesky_inverse(upper_nn)  # the lower factor, then the inverse, is dropped: they are large
        upper_nn, failed = torch.linalg.cholesky_ex(upper_nn, upper=True)
    if failed or not upper_nn.isfinite().all():
        raise NumericsError("KD703", "a layer's second moment has no Cholesky factor; calibrate on more images")
    return upper_nn


def weighted_energy(targets: Sequence[Target]) -> float:
    """The weighted output energy of a family, which its errors are relative to; never zero."""
    return max(sum(target.weight * target.energy for target in targets), math.sqrt(TINY))


def fit_error(kernel_on: Tensor, target: Target) -> float:
    """E|W u - kernel u|^2: the output error of a kernel, for the original kernel W and the input patches u."""
    difference_on = target.kernel_on - kernel_on
    return float((times(difference_on, target.moment) * difference_on).sum())


def minimize(
    function: Callable[[Sequence[Tensor]], tuple[float, Sequence[Tensor]]],
    start: Sequence[Tensor],
    steps: int,
    gain: float = GAIN,
) -> list[Tensor]:
    """Minimize by L-BFGS from `start`, in at most `steps` steps. `function` returns its value and its gradients.

    The value is an error, with 0 as its least. The search ends when PATIENCE steps gained less than `gain` of it.
    """
    shapes = [tensor.shape for tensor in start]
    sizes = [tensor.numel() for tensor in start]

    def unpack(flat: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]

    def flat_function(x: object) -> tuple[float, object]:
        value, gradients = function(unpack(torch.as_tensor(x)))
        return value, torch.cat([gradient.reshape(-1) for gradient in gradients]).numpy()

    flat = torch.cat([tensor.reshape(-1) for tensor in start]).numpy()
    values: list[float] = []

    def stop_without_gain(intermediate_result: OptimizeResult) -> None:
        values.append(float(intermediate_result.fun))
        if len(values) > PATIENCE and values[-1 - PATIENCE] - values[-1] < gain * values[-1]:
            raise StopIteration

    # scipy's own limits are absolute: in a large family each part of the gradient is below them far from the minimum.
    options = {"maxiter": steps, "maxcor": 12, "gtol": 0.0, "ftol": 0.0}
    result = scipy_minimize(
        flat_function, flat, jac=True, method="L-BFGS-B", callback=stop_without_gain, options=options
    )
    return unpack(torch.from_numpy(result.x))
