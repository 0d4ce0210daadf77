"""Streams: datasets in shards that are read from their beginning, `wds/` and `hfids/` (and `tfds/`, as one shard).

The position of an image is its number in the whole stream, whatever process reads it: the lengths of the shards are
known, from `_info.json`, or counted. A process opens only the shards that hold what it reads.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .decoding import Decoder, UnreadableImageError
from .shards import Cursor, LostShard, LostShardError, Record, Shards, lost_shard
from .sources import Classes, Sample

# A part of a stream, such as the calibration images, takes this many images of one shard before those of another.
RUN = 16

Read = tuple[int, Record | UnreadableImageError]


class Stream:
    """The first images of shards, all of them or as many as were named.

    Args:
        shards: The shards.
        lengths: The numbers of their samples, of the first shards at least.
        decode: How a picture becomes an input.
        classes: The label of each class name.
        mapped: Whether a class map numbers the classes.
        strict: Whether a lost shard is an error. Otherwise its images are skipped.
        most: The number of images that were named.
    """

    labeled = True

    def __init__(
        self,
        shards: Shards,
        lengths: Sequence[int],
        decode: Decoder,
        *,
        classes: Classes | None = None,
        mapped: bool = False,
        strict: bool = False,
        most: int | None = None,
    ) -> None:
        self.shards, self.strict = shards, strict
        self.decode = decode
        self.finish = decode.finish
        self.classes: Classes = classes or {}
        self.mapped = mapped
        self.ends = list(accumulate(lengths))
        whole = self.ends[-1] if self.ends else 0
        self.length = whole if most is None else min(most, whole)

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        shard, place = self.place(index)
        return f"{self.shards.names[shard]}: image {place}"

    def place(self, index: int) -> tuple[int, int]:
        """The shard of a position, and the number of the sample in it."""
        shard = bisect_right(self.ends, index)
        return shard, index - (self.ends[shard - 1] if shard else 0)

    def spread(self, positions: Sequence[int], seed: int) -> list[int]:
        """The order in which parts are drawn from these positions, as places among them.

        RUN images of every shard, the shards in a random order, then the next RUN of every shard, and so on: a small
        part comes from the beginnings of many shards.
        """
        position = np.asarray(positions, np.int64)
        shard = np.searchsorted(np.asarray(self.ends), position, side="right")
        place = position - np.concatenate([[0], self.ends])[shard]
        rank = np.random.RandomState(seed).permutation(len(self.ends))  # frozen by NumPy, as for images.shuffled
        order: list[int] = np.lexsort((place, rank[shard], place // RUN)).tolist()
        return order

    def read(self, positions: Iterable[int]) -> Iterator[Read]:
        """The records at these positions, which rise. Those of a lost shard are errors whose text is a LostShard.

        Raises DataError KD420 for a lost shard of a strict stream.
        """
        open_shards = OpenShard(self)
        try:
            for position in positions:
                yield position, open_shards.read(position)
        finally:
            open_shards.close()

    def decoded(self, record: Record) -> Sample:
        """The decoded input and its label. Raises UnreadableImageError."""
        picture, label = record
        return self.decode(io.BytesIO(picture) if isinstance(picture, bytes) else picture), label


class OpenShard:
    """The shard that is read at the moment, and where. Positions that rise are read in one pass."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.shard, self.next = -1, 0
        self.cursor: Cursor | None = None
        self.lost: Mapping[int, LostShard] = {}

    def read(self, position: int) -> Record | UnreadableImageError:
        """The record, or why there is none. Raises DataError KD420."""
        shard, place = self.stream.place(position)
        if shard in self.lost:
            return UnreadableImageError(self.lost[shard])
        try:
            if shard != self.shard or place < self.next or self.cursor is None:
                self.close()
                self.cursor = self.stream.shards.open(shard)
            self.shard, self.next = shard, place + 1
            return self.cursor.read(place)
        except UnreadableImageError as error:
            return error
        except LostShardError as error:
            return UnreadableImageError(self._lose(shard, str(error)))

    def _lose(self, shard: int, reason: str) -> LostShard:
        name = self.stream.shards.names[shard]
        if self.stream.strict:
            raise lost_shard(name, reason)
        self.close()
        lost = LostShard(f"{name}: {reason}")
        self.lost = {shard: lost}  # of this shard no more is read; a later pass tries again
        return lost

    def close(self) -> None:
        if self.cursor is not None:
            self.cursor.close()
        self.cursor, self.shard = None, -1


def lost_reason(error: UnreadableImageError) -> str:
    """Why an image is skipped: the LostShard itself, so that the images of one shard are listed together."""
    first: Any = error.args[0] if error.args else ""
    return first if isinstance(first, LostShard) else str(error)
