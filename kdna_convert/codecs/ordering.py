"""The stable order of numbers by their buckets, and its inverse, in blocks that fit a processor's cache.

Sorting and scattering millions of numbers at once waits for memory. In blocks, both take a third of the time.
"""

from __future__ import annotations

import numpy as np

from .expectation import BUCKETS, Buckets, Index, Integers

_BLOCK = 1 << 16


class ByBucket:
    """Numbers of bucket 0 first, then of bucket 1, each in its given order. `lengths`: the numbers in each bucket."""

    def __init__(self, bucket: Buckets) -> None:
        self.size = len(bucket)
        blocks = [bucket[start : start + _BLOCK] for start in range(0, self.size, _BLOCK)]
        self.orders = [np.argsort(block, kind="stable") for block in blocks]
        tallies = [np.bincount(block, minlength=BUCKETS) for block in blocks]
        counted = np.array(tallies, np.int64).reshape(-1, BUCKETS)
        self.lengths: Index = counted.sum(0)
        # (blocks, buckets): where a block's numbers of a bucket begin in the sorted order.
        self.starts = (np.cumsum(self.lengths) - self.lengths) + np.cumsum(counted, 0) - counted
        self.counted = counted

    def sorted(self, values: Integers) -> Integers:
        """The values, bucket after bucket."""
        sorted_values = np.empty_like(values)
        for block, order in enumerate(self.orders):
            own = values[block * _BLOCK :][: len(order)].take(order, mode="clip")
            start = 0
            for piece in self._pieces(block):
                end = start + piece.stop - piece.start
                sorted_values[piece] = own[start:end]
                start = end
        return sorted_values

    def restored(self, values: Integers) -> Integers:
        """The inverse of `sorted`."""
        restored_values = np.empty_like(values)
        for block, order in enumerate(self.orders):
            restored_values[block * _BLOCK :][: len(order)][order] = np.concatenate(
                [values[p] for p in self._pieces(block)]
            )
        return restored_values

    def _pieces(self, block: int) -> list[slice]:
        """Where the block's numbers are in the sorted order, bucket after bucket."""
        own = np.flatnonzero(self.counted[block])
        starts = self.starts[block][own]
        return [
            slice(*ends) for ends in zip(starts.tolist(), (starts + self.counted[block][own]).tolist(), strict=True)
        ]
