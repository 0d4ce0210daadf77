"""How large each integer of a weight tensor is likely to be, from those of its tensor that are known already.

A tensor is a matrix: a row an output channel, a column an input and a tap, and the columns of one input a kernel. It
becomes known in a few passes, each a share of every row. What a place is expected to hold is its row's mean magnitude
times its column's over the tensor's, drawn towards what its own kernel holds.

# Note [Same on every machine]
# The decoder repeats the encoder's arithmetic and must come to the same bit. Sums are therefore of integers, and floats
# meet only in elementwise + - * /, which IEEE 754 defines exactly: no exp or log, no sum of fractions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..specs import Shape, product

Integers = NDArray[np.int32]
Index = NDArray[np.int64]
Buckets = NDArray[np.uint8]

# Buckets are quarter octaves of the expected magnitude, from 2^-8 to 2^23: the top bits of a float32.
BUCKETS = 31 << 2
_LOWEST = (127 - 8) << 2
# As if so many known ones of a line held the tensor's mean, and of a kernel what its lines say. Measured on the
# integers of a ResNet-56 at 1 to 2 bits a weight; half or double costs up to 0.3 % of the bytes.
_LINE, _KERNEL = np.float32(20), np.float32(16)
# From this share of a tensor on, its kernels have a say.
_KERNELS_SPEAK = 0.2
_GOLDEN = np.uint32(2654435769)  # 2^32 over the golden ratio: its multiples lie evenly


def bucket_of(magnitude: Any) -> Buckets:
    """The bucket of each magnitude, float32."""
    quarter_octave = magnitude.view(np.int32) >> 21
    quarter_octave -= _LOWEST
    found: Buckets = np.clip(quarter_octave, 0, BUCKETS - 1, out=quarter_octave).astype(np.uint8)
    return found


def middles() -> NDArray[np.float32]:
    """The magnitude in the middle of each bucket."""
    return (((np.arange(BUCKETS) + _LOWEST) << 21) + (1 << 20)).astype(np.int32).view(np.float32)


class Matrix:
    """One tensor, as far as it is known. `values` are all of its integers, flat; `mean` is about their mean size."""

    def __init__(self, shape: Shape, values: Integers, mean: np.float32) -> None:
        self.values, self.mean = values, mean
        self.rows = shape[0] if len(shape) > 1 else 1
        self.columns = len(values) // self.rows
        self.taps = product(shape[2:])
        self.order = np.argsort(np.arange(self.columns, dtype=np.uint32) * _GOLDEN, kind="stable")
        self.row_sum = np.zeros(self.rows, np.int64)
        self.column_sum, self.column_count = np.zeros(self.columns), np.zeros(self.columns, np.int64)
        self.kernel_sum = np.zeros(len(values) // self.taps)
        self.known = 0  # of each row

    def choose(self, share: float) -> None:
        """Set `place`: what of the flat tensor is known next, so that `share` of it is; as many places of every row.

        Each row begins its round of the columns elsewhere, so that every column has its part in every pass.
        """
        chosen = self.order[self.known : round(share * self.columns)]
        begin = np.arange(self.rows) * (int(0.618 * self.columns) | 1) % self.columns
        self.column = chosen + begin[:, None]
        self.column -= np.multiply(self.column >= self.columns, self.columns)
        self.place = (self.column + np.arange(self.rows)[:, None] * self.columns).reshape(-1)

    def buckets(self) -> Buckets:
        """The buckets of the magnitudes to expect at the chosen places."""
        column_mean = self.column_sum.astype(np.float32) + _LINE * self.mean
        column_mean /= self.column_count.astype(np.float32) + _LINE
        row_share = self.row_sum.astype(np.float32) / self.mean + _LINE
        row_share /= np.float32(self.known) + _LINE
        expected = column_mean.take(self.column)
        expected *= row_share[:, None]
        if self.taps > 1 and self.known > _KERNELS_SPEAK * self.columns:
            expected *= _KERNEL
            expected += self.kernel_sum.astype(np.float32).take(self._kernels())
            expected /= _KERNEL + np.float32(self.taps * self.known / self.columns)
        return bucket_of(expected.reshape(-1))

    def learn(self, found: Integers) -> None:
        """The integers at the chosen places."""
        self.values[self.place] = found
        self.known += self.column.shape[1]
        if self.known == self.columns or not len(found):
            return
        magnitude = np.abs(found)
        weights = magnitude.astype(np.float64)
        self.row_sum += magnitude.reshape(self.rows, -1).sum(1)
        column = self.column.reshape(-1)
        self.column_sum += np.bincount(column, weights=weights, minlength=self.columns)
        self.column_count += np.bincount(column, minlength=self.columns)
        if self.taps > 1:
            self.kernel_sum += np.bincount(self._kernels().reshape(-1), weights=weights, minlength=len(self.kernel_sum))

    def _kernels(self) -> Index:
        """The kernels that the chosen places lie in."""
        own = (np.arange(self.columns) // self.taps).take(self.column)
        own += np.arange(0, len(self.kernel_sum), self.columns // self.taps)[:, None]
        return own
