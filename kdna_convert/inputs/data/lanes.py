"""The order of the training images of a stream: a function of the seed and the place, whatever process reads.

In every epoch the shards are put in a random order and their images, one after the other, are cut into lanes of equal
length. Each batch takes the same number of images from every lane. Within a lane, the images of a window are shuffled:

    lane 0   [ . . . window . . . ][ . . . ] ...      slots 0, 1 of every batch
    lane 1   [ . . ][ . . . window . . . ] ...        slots 2, 3

A process, or a worker of it, reads the lanes of its slots only, and holds one window of each. No state is needed to
begin in the middle. Up to `lanes - 1` images of an epoch, others in each, are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np

# The most lanes. A batch comes from so many shards at once.
LANES = 32


@dataclass(frozen=True)
class LaneWindow:
    """Images of a lane that are shuffled together: [begin, end) of an epoch's lane."""

    lane: int
    epoch: int
    begin: int
    end: int


@dataclass(frozen=True)
class Lanes:
    """The order.

    Attributes:
        counts: The number of training images of each shard.
        batch_size: Images of a batch, over all processes.
        seed: Of the order.
        buffer: Images that are shuffled together, in the windows of all lanes.
    """

    counts: tuple[int, ...]
    batch_size: int
    seed: int
    buffer: int

    @cached_property
    def count(self) -> int:
        """The number of lanes: it divides the batch, and there are no more lanes than shards."""
        shards, images = sum(count > 0 for count in self.counts), sum(self.counts)
        most = max(1, min(LANES, shards, images, self.batch_size))
        return next(lanes for lanes in range(most, 0, -1) if self.batch_size % lanes == 0)

    @property
    def slots(self) -> int:
        """The images of a lane in a batch."""
        return self.batch_size // self.count

    @cached_property
    def length(self) -> int:
        """The images of a lane in an epoch."""
        return sum(self.counts) // self.count

    @property
    def window(self) -> int:
        """The images of a window."""
        return max(1, self.buffer // self.count)

    def window_at(self, lane: int, turn: int) -> LaneWindow:
        """The window of a lane's image number `turn`, counted over all epochs.

        The first window of a lane is shorter, for each lane another, so that not all windows begin at once.
        """
        epoch, place = divmod(turn, self.length)
        first = max(1, self.window * (lane + 1) // self.count)
        begin = 0 if place < first else first + (place - first) // self.window * self.window
        return LaneWindow(lane, epoch, begin, min(self.length, begin + self.window if begin else first))

    def images(self, window: LaneWindow) -> list[tuple[int, int]]:
        """The images of a window in their order, each as a shard and the image's number among those of the shard."""
        order = self._shards(window.epoch)
        ends = list(accumulate(self.counts[shard] for shard in order))
        size = window.end - window.begin
        seed = Random(f"{self.seed} {window.epoch} {window.lane} {window.begin}").getrandbits(32)
        drawn = np.random.RandomState(seed).permutation(size)  # frozen by NumPy
        start = window.lane * self.length + window.begin
        found: list[tuple[int, int]] = []
        for place in (start + int(own) for own in drawn):
            number = bisect_right(ends, place)
            found.append((order[number], place - (ends[number - 1] if number else 0)))
        return found

    def after(self, shard: int, epoch: int) -> list[int]:
        """The other shards, in an epoch's order from this one on: each can stand in for a lost one."""
        order = [each for each in self._shards(epoch) if self.counts[each]]
        here = order.index(shard)
        return [*order[here + 1 :], *order[:here]]

    def rank(self, shard: int, epoch: int) -> int:
        """The place of a shard in an epoch's order."""
        return self._shards(epoch).index(shard)

    def _shards(self, epoch: int) -> list[int]:
        if self._last.get("epoch") != [epoch]:
            seed = (self.seed + 7919 * epoch) % 2**32
            order: list[int] = np.random.RandomState(seed).permutation(len(self.counts)).tolist()
            self._last.update(epoch=[epoch], order=order)
        return self._last["order"]

    @cached_property
    def _last(self) -> dict[str, list[int]]:
        """The order of the epoch that was asked for last."""
        return {}


def part_slots(batch_size: int, part: int, parts: int) -> range:
    """The slots of a batch that belong to one of several parts: processes, and their workers."""
    return range(batch_size * part // parts, batch_size * (part + 1) // parts)


def counts_of(shards: Any, total: int) -> tuple[int, ...]:
    """How many images each of `total` shards has, by the shard of every image."""
    return tuple(np.bincount(np.asarray(shards, np.int64), minlength=total).tolist())
