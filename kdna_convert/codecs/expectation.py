"""The expected magnitude of each integer of a weight tensor, from the integers of the tensor that are known already.

A tensor is treated as a matrix: a row for each output channel, a column for each input and tap; the columns of one
input are a kernel. It becomes known in a few passes, each a share of every row. The expected magnitude at a place is
its row's mean magnitude times its column's over the tensor's, averaged with that of its own kernel.

# Note [Same on every machine]
# The decoder repeats the encoder's arithmetic and must get the same bits. Sums are therefore of integers, and floats
# are used only in elementwise + - * /, which IEEE 754 defines exactly: no exp or log, no sum of fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.specs import Shape, product

Integers = NDArray[np.int32]
Index = NDArray[np.int64]
Buckets = NDArray[np.uint8]

# Buckets are quarter octaves of the expected magnitude, from 2^-8 to 2^23: the top bits of a float32.
BUCKETS = 31 << 2
_LOWEST = (127 - 8) << 2
# The prior weight of the tensor's mean in the mean of a row or column, and of rows and columns in that of a kernel, in
# known integers. Measured on a ResNet-56 at 1 to 2 bits per weight: half or double costs up to 0.3 % of the bytes.
_LINE, _KERNEL = np.float32(20), np.float32(16)
# The known share of a tensor from which on kernels are used.
_KERNELS_FROM = 0.2
_GOLDEN = np.uint32(2654435769)  # 2^32 over the golden ratio: its multiples are evenly spread


def bucket_of(magnitude: Any) -> Buckets:
    """The bucket of each magnitude, float32."""
    quarter_octave = magnitude.view(np.int32) >> 21
    quarter_octave -= _LOWEST
    np.maximum(quarter_octave, 0, out=quarter_octave)  # np.clip costs more than these on a small tensor
    np.minimum(quarter_octave, BUCKETS - 1, out=quarter_octave)
    buckets: Buckets = quarter_octave.astype(np.uint8)
    return buckets


def middles() -> NDArray[np.float32]:
    """The magnitude in the middle of each bucket."""
    return (((np.arange(BUCKETS) + _LOWEST) << 21) + (1 << 20)).astype(np.int32).view(np.float32)


class Alike:
    """The known parts of tensors of one shape. The places that become known next are the same in each.

    `values` are the integers of each, flat; `means` their approximate mean magnitudes. One object serves all tensors of
    a shape: a net has many small tensors of few shapes, and the places are then computed once.
    """

    def __init__(self, shape: Shape, values: Sequence[Integers], means: NDArray[np.float32]) -> None:
        self.values, self.means = values, means[:, None]
        count, size = len(values), len(values[0])
        self.rows = shape[0] if len(shape) > 1 else 1
        self.columns = size // self.rows
        self.taps = product(shape[2:])
        self.order = np.argsort(np.arange(self.columns, dtype=np.uint32) * _GOLDEN, kind="stable")
        self.begin = np.arange(self.rows) * (int(0.618 * self.columns) | 1) % self.columns
        # Sums of integers, and below 2^53: as floats they are exact, in any order.
        self.row_sum = np.zeros((count, self.rows))
        self.column_sum, self.column_count = np.zeros((count, self.columns)), np.zeros(self.columns, np.int64)
        self.kernel_sum = np.zeros((count, size // self.taps))
        self.known = 0  # of each row

    def choose(self, share: float) -> int:
        """Set `place`, the places of each flat tensor that become known next, up to `share`. Returns their number.

        Every row has equally many. Each row starts its round of the columns at another one, so that every pass covers
        all columns.
        """
        chosen = self.order[self.known : round(share * self.columns)]
        column = chosen + self.begin[:, None]
        column -= np.multiply(column >= self.columns, self.columns)
        self.column = column.reshape(-1)
        self.place = (column + np.arange(0, self.rows * self.columns, self.columns)[:, None]).reshape(-1)
        self.kernel = self.place // self.taps
        return len(self.place)

    def buckets(self) -> Buckets:
        """The buckets of the expected magnitudes at the chosen places, (tensors, places)."""
        column_mean = self.column_sum.astype(np.float32) + _LINE * self.means
        column_mean /= self.column_count.astype(np.float32) + _LINE
        row_share = self.row_sum.astype(np.float32) / self.means + _LINE
        row_share /= np.float32(self.known) + _LINE
        use_kernels = self.taps > 1 and self.known > _KERNELS_FROM * self.columns
        if use_kernels:
            row_share *= _KERNEL  # a power of two: exact, whenever it is multiplied by
        expected = column_mean.take(self.column, axis=1, mode="clip")  # of places that are all there, a faster take
        by_row = expected.reshape(len(expected), self.rows, -1)
        by_row *= row_share[:, :, None]
        if use_kernels:
            expected += self.kernel_sum.astype(np.float32).take(self.kernel, axis=1, mode="clip")
            expected /= _KERNEL + np.float32(self.taps * self.known / self.columns)
        return bucket_of(expected)

    def learn(self, integers: Sequence[Integers]) -> None:
        """Store the integers of each tensor at the chosen places, and update the sums."""
        for values, own in zip(self.values, integers, strict=True):
            values[self.place] = own
        self.known += len(self.place) // self.rows
        if self.known == self.columns or not len(self.place):
            return
        self.column_count += np.bincount(self.column, minlength=self.columns)
        magnitudes = np.abs(np.stack(integers), dtype=np.float64)
        self.row_sum += magnitudes.reshape(len(integers), self.rows, -1).sum(2)
        for own, column_sum, kernel_sum in zip(magnitudes, self.column_sum, self.kernel_sum, strict=True):
            column_sum += np.bincount(self.column, own, self.columns)
            if self.taps > 1:
                kernel_sum += np.bincount(self.kernel, own, len(kernel_sum))
