"""The stable order of numbers by their buckets, and back, in blocks that a processor's cache holds.

Sorting and scattering millions of numbers at once waits for memory: in blocks both take a third of the time.
"""

from __future__ import annotations

import numpy as np

from .expectation import BUCKETS, Buckets, Index, Integers

_BLOCK = 1 << 16


class ByBucket:
    """What lies in bucket 0 first, then bucket 1, each in its given order. `lengths`: how many a bucket has."""

    def __init__(self, bucket: Buckets) -> None:
        self.size = len(bucket)
        blocks = [bucket[start : start + _BLOCK] for start in range(0, self.size, _BLOCK)]
        self.orders = [np.argsort(block, kind="stable") for block in blocks]
        tallies = [np.bincount(block, minlength=BUCKETS) for block in blocks]
        counted = np.array(tallies, np.int64).reshape(-1, BUCKETS)
        self.lengths: Index = counted.sum(0)
        # (blocks x buckets): where what a block has of a bucket begins, among all that is sorted.
        self.starts = (np.cumsum(self.lengths) - self.lengths) + np.cumsum(counted, 0) - counted
        self.counted = counted

    def sorted(self, values: Integers) -> Integers:
        """The values, bucket after bucket."""
        found = np.empty_like(values)
        for block, order in enumerate(self.orders):
            own = values[block * _BLOCK :][: len(order)].take(order, mode="clip")
            start = 0
            for piece in self._pieces(block):
                end = start + piece.stop - piece.start
                found[piece] = own[start:end]
                start = end
        return found

    def restored(self, values: Integers) -> Integers:
        """The inverse of `sorted`."""
        found = np.empty_like(values)
        for block, order in enumerate(self.orders):
            found[block * _BLOCK :][: len(order)][order] = np.concatenate([values[p] for p in self._pieces(block)])
        return found

    def _pieces(self, block: int) -> list[slice]:
        """Where the block's numbers are among all that are sorted, bucket after bucket."""
        own = np.flatnonzero(self.counted[block])
        starts = self.starts[block][own]
        return [
            slice(*ends) for ends in zip(starts.tolist(), (starts + self.counted[block][own]).tolist(), strict=True)
        ]
