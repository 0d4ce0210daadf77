"""Pure tensor maths: second moments, weighted least squares in normal form, and one minimiser for what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from scipy.optimize import minimize
from torch import Tensor

from .errors import NumericsError
from .specs import Shape

# Relative to the mean diagonal. DAMPING keeps a moment of too few patches from trusting directions it never saw;
# JITTER only keeps Cholesky alive.
DAMPING = 1e-4
JITTER = 1e-9
# The smallest positive number: what keeps a division by an energy alive where a kernel is all zeros.
TINY: float = torch.finfo(torch.float64).tiny
# Patches longer than this are searched in the Kronecker form of their moment.
FULL_METRIC_PATCH = 1200


class Kronecker(NamedTuple):
    """A second moment of patches kept as two factors: C[(i,s),(j,t)] ~ channels[i,j] taps[s,t]."""

    channels_cc: Tensor
    taps_tt: Tensor


Moment = Tensor | Kronecker


@dataclass(frozen=True)
class Target:
    """What one member of a family must reproduce: a least-squares problem in normal form, float64.

    `kernel_on` is the original kernel (out x patch), `cross_on` = E[y u^T], `moment` = E[u u^T] of its input patches;
    the plain fit has cross = W C, the data-free one C = I. `weight` is how much the loss feels this layer's output
    error.
    """

    shape: Shape
    kernel_on: Tensor
    cross_on: Tensor
    moment: Moment
    weight: float

    @property
    def energy(self) -> float:
        """E[y . y] of the layer's output, bias aside."""
        return float((self.cross_on * self.kernel_on).sum())


def plain_target(kernel: Tensor, moment: Moment, weight: float, count: int = 0) -> Target:
    """The target that asks for the original kernel's own outputs, on a damped moment.

    `count` is the number of patches the moment was averaged over, 0 for a moment that is exact. Too few patches for
    their length leave a moment that trusts what it happened to see: it is drawn towards its own Kronecker form.
    """
    kernel_on = kernel.double().flatten(1)
    damped = damp(moment)
    if count and isinstance(damped, Tensor):
        own = len(damped) / (len(damped) + count)
        damped = (1 - own) * damped + own * dense(kronecker(damped, kernel.shape[1]))
    return Target(tuple(kernel.shape), kernel_on, times(kernel_on, damped), damped, weight)


def damp(moment: Moment, amount: float = DAMPING) -> Moment:
    """The moment in float64, symmetric, with `amount` of its mean diagonal added to the diagonal.

    The moment of inputs that were all zero says nothing: the identity takes its place.
    """
    if isinstance(moment, Kronecker):
        return Kronecker(_damped(moment.channels_cc, amount), _damped(moment.taps_tt, amount))
    return _damped(moment, amount)


def _damped(moment: Tensor, amount: float) -> Tensor:
    damped = (moment.double() + moment.double().T) / 2
    mean = float(damped.diagonal().mean())
    damped.diagonal().add_(amount * mean if mean > 0 else 1.0)
    return damped


def searchable(target: Target) -> Target:
    """The target that shared tensors are searched for under; adapters are then solved under the target itself.

    A long patch is met by the Kronecker form of its moment: far cheaper, a little less exact (docs/decisions/0003).
    """
    if isinstance(target.moment, Kronecker) or len(target.moment) <= FULL_METRIC_PATCH:
        return target
    moment = kronecker(target.moment, target.shape[1])
    changed_on = times(target.kernel_on, moment) - times(target.kernel_on, target.moment)
    return replace(target, moment=moment, cross_on=target.cross_on + changed_on)


def kronecker(moment_nn: Tensor, channels: int) -> Kronecker:
    """The partial traces of a moment, scaled so that their product has its trace."""
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


def untimes(x_on: Tensor, moment: Moment) -> Tensor:
    """X C^-1 for X of shape (rows, n) and a moment that was damped. Raises NumericsError KD703."""
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
    """U = cross gram^-1: the least-squares mixing of a basis with this Gram matrix. Raises NumericsError KD703."""
    gram_rr = gram_rr.clone()
    gram_rr.diagonal().add_(JITTER * gram_rr.diagonal().mean() + TINY)
    factor, failed = torch.linalg.cholesky_ex(gram_rr)
    if failed:
        raise NumericsError("KD703", "a least-squares fit is singular; lower the rank or calibrate on more images")
    return torch.cholesky_solve(cross_or.T, factor).T


def weighted_energy(targets: Sequence[Target]) -> float:
    """What the errors of a family are measured against: its targets' weighted energy, never zero."""
    return max(sum(target.weight * target.energy for target in targets), math.sqrt(TINY))


def fit_error(kernel_on: Tensor, target: Target) -> float:
    """E|W u - kernel u|^2 of a kernel against the target's own, in the target's metric."""
    gap_on = target.kernel_on - kernel_on
    return float((times(gap_on, target.moment) * gap_on).sum())


def minimise(
    function: Callable[[Sequence[Tensor]], tuple[float, Sequence[Tensor]]], start: Sequence[Tensor], steps: int
) -> list[Tensor]:
    """L-BFGS from `start`: at most `steps` steps of `function`, which returns its value and its gradients."""
    shapes = [tensor.shape for tensor in start]
    sizes = [tensor.numel() for tensor in start]

    def unpack(flat: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]

    def flat_function(x: object) -> tuple[float, object]:
        value, gradients = function(unpack(torch.as_tensor(x)))
        return value, torch.cat([gradient.reshape(-1) for gradient in gradients]).numpy()

    flat = torch.cat([tensor.reshape(-1) for tensor in start]).numpy()
    found = minimize(flat_function, flat, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 12})
    return unpack(torch.from_numpy(found.x))
