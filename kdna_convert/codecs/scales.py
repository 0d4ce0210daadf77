"""Factors of a tensor's quantization step: one for each row, column and tap, in quarter octaves.

A row is an index of the first axis, a column one of the second, a tap one of all further axes. The step of a number is
the tensor's step times its three factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..core.specs import Shape
from .expectation import Integers

PER_OCTAVE = 4
# The largest exponent of a row, column or tap: 16 octaves.
FURTHEST = 64


@dataclass(frozen=True)
class Scales:
    """Exponents of 2^(1/4) by row, column and tap."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    taps: tuple[int, ...]

    def factors(self, shape: Shape) -> Tensor:
        """The factor of each number of a tensor of this shape, float32."""
        return power(torch.tensor(self.rows, dtype=torch.int32)[:, None] + self._across()).view(shape)

    def column_factors(self) -> Tensor:
        """The factors (columns * taps,) of a row whose own factor is one, float32."""
        return power(self._across())

    def _across(self) -> Tensor:
        columns_i, taps_t = (torch.tensor(part, dtype=torch.int32) for part in (self.columns, self.taps))
        return (columns_i[:, None] + taps_t).reshape(-1)


def power(exponents: Tensor) -> Tensor:
    """2^(exponents / 4), float32: the same on every machine."""
    fractions = torch.tensor([2.0 ** (k / PER_OCTAVE) for k in range(PER_OCTAVE)], dtype=torch.float32)
    return torch.ldexp(fractions[(exponents % PER_OCTAVE).long()], exponents // PER_OCTAVE)


def lengths(shape: Shape) -> tuple[int, int, int]:
    """The number of rows, columns and taps of a tensor of two or more axes."""
    return shape[0], shape[1], math.prod(shape[2:])


def nearest_exponents(factors: Tensor) -> tuple[int, ...]:
    """The exponents nearest to positive factors."""
    exponents = (PER_OCTAVE * factors.double().log2()).round().clamp(-FURTHEST, FURTHEST)
    return tuple(int(exponent) for exponent in exponents.tolist())


def joined(scales: Sequence[Scales]) -> list[Integers]:
    """The exponents of all rows, all columns and all taps."""
    parts = zip(*((own.rows, own.columns, own.taps) for own in scales), strict=True)
    return [np.array(list(chain.from_iterable(part)), np.int32) for part in parts]


def split(flat: Sequence[Integers], shapes: Sequence[Shape]) -> list[Scales]:
    """The scales of tensors of these shapes: the inverse of `joined`."""
    sizes = zip(*map(lengths, shapes), strict=True)
    parts = [np.split(own, np.cumsum(size)[:-1]) for own, size in zip(flat, sizes, strict=True)]
    return [Scales(*(tuple(part.tolist()) for part in own)) for own in zip(*parts, strict=True)]
