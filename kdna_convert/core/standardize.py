"""Kernels of layers that standardize their weight on every forward pass, such as timm's StdConv2d.

Such a layer multiplies patches by g (V - mean) / sqrt(var + eps) for the weight V, per output channel: a kernel K of
mean 0 whose standard deviation is below |g|. Every such K has a weight. With s = std(K) / g, the layer turns

    V = K / g sqrt(eps / (1 - s^2))

into K: a small V is not amplified to the deviation g, because eps then counts (decision 0024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .linalg import Kronecker, Moment
from .specs import Layer

# How far s^2 stays below 1. The weight's deviation is then at most 300 sqrt(eps).
_ROOM = 1e-5
# Avoids a division by the zero variance of a channel that is all zeros.
_LEAST = 1e-30


class Standardized(NamedTuple):
    """What a standardizing layer does to a weight: its `eps`, and the `bound` g of a channel's standard deviation."""

    eps: float
    bound: float


def standardized_by_name(layers: Sequence[Layer]) -> dict[str, Standardized]:
    """How the layers that standardize their weight do it."""
    return {layer.name: Standardized(*layer.standardized) for layer in layers if layer.standardized is not None}


def standardize(weight: Tensor, eps: float, gain: Tensor | float) -> Tensor:
    """The kernel that a layer makes of its weight, per output channel. `gain` is broadcast over the weight."""
    variance, mean = (part.view((-1,) + (1,) * (weight.dim() - 1)) for part in _spread(weight))
    return (weight - mean) / (variance + eps).sqrt() * gain


def as_run(kernel: Tensor, bound: float) -> Tensor:
    """The nearest kernel that the layer can have: of mean 0, scaled down where its deviation exceeds the bound."""
    return _bounded(kernel, bound)[0]


def encode(kernel: Tensor, standardized: Standardized) -> Tensor:
    """The weight of which the layer makes `as_run(kernel)`, differentiably, in the kernel's dtype."""
    eps, bound = standardized
    bounded, share = _bounded(kernel if kernel.dtype == torch.float64 else kernel.float(), bound)
    return (bounded / bound * (eps / (1 - share)).sqrt()).to(kernel.dtype)


def without_mean(moment: Moment, channels: int) -> Moment:
    """The moment P C P of patches less their own mean: all that a kernel of mean 0 sees.

    For a Kronecker product these are the partial traces of the exact one.
    """
    if not isinstance(moment, Kronecker):
        rows = moment - moment.mean(0, keepdim=True)
        return rows - rows.mean(1, keepdim=True)
    terms = [(moment.channels_cc, moment.taps_tt, 1.0)]
    terms += [(_mean_rows(moment.channels_cc), _mean_rows(moment.taps_tt), -1.0)]
    terms += [(_mean_rows(moment.channels_cc.T).T, _mean_rows(moment.taps_tt.T).T, -1.0)]
    terms += [(_mean_rows(_mean_rows(moment.channels_cc).T), _mean_rows(_mean_rows(moment.taps_tt).T), 1.0)]
    taps = len(moment.taps_tt)
    channels_cc = torch.stack([sign * a * b.trace() for a, b, sign in terms]).sum(0) / taps
    taps_tt = torch.stack([sign * a.trace() * b for a, b, sign in terms]).sum(0)
    return Kronecker(channels_cc, taps_tt * (taps / taps_tt.trace().clamp_min(_LEAST)))


def _bounded(kernel: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The kernel as the layer runs it, and the variance of each channel as a share of that of the bound."""
    variance, mean = (part.view((-1,) + (1,) * (kernel.dim() - 1)) for part in _spread(kernel))
    share = variance / bound**2
    shrink = ((1 - _ROOM) / share.clamp_min(_LEAST)).clamp_max(1).sqrt()
    return (kernel - mean) * shrink, share.clamp_max(1 - _ROOM)


def _spread(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The variance and the mean of each output channel."""
    return torch.var_mean(kernel.flatten(1), dim=1, correction=0)


def _mean_rows(matrix: Tensor) -> Tensor:
    """J M: every row is the mean of the rows."""
    return matrix.mean(0, keepdim=True).expand_as(matrix)
