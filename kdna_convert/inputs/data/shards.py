"""Shards: the files of a stream. Each is read from its beginning, sample after sample.

tar_shards.py reads those of webdataset, parquet_shards.py those of Hugging Face datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol

from ...core.errors import DataError
from ...core.processes import gather, number, raise_together
from .decoding import UnreadableImageError, one_line

# An encoded picture, as bytes or as a PIL image, and its class.
Record = tuple[Any, int | None]


class LostShardError(Exception):
    """A shard is missing, or torn: its remaining samples cannot be read. `str()` says why."""


class LostShard(str):
    """Why an image is skipped whose shard is lost: `shard: reason`. Images of one shard are listed together."""

    __slots__ = ()


class Cursor(Protocol):
    """A place in an open shard, which moves forward only."""

    def read(self, place: int) -> Record:
        """The sample with this number. Raises LostShardError, and UnreadableImageError for a sample without image."""
        ...

    def close(self) -> None: ...


class Shards(Protocol):
    """The shards of a stream."""

    @property
    def names(self) -> Sequence[str]:
        """Their names for messages."""
        ...

    @property
    def lengths(self) -> Sequence[int] | None:
        """The numbers of their samples; None: unknown."""
        ...

    def count(self, shard: int) -> tuple[int, str | None]:
        """How many samples of a shard can be read, and why there are no more; None where it ends as it should."""
        ...

    def open(self, shard: int) -> Cursor:
        """The beginning of a shard. Raises LostShardError."""
        ...


class OneShard:
    """A stream whose shards are not known, as one shard: timm's iterable dataset of PIL images and classes."""

    def __init__(self, dataset: Any, name: str, length: int) -> None:
        self.dataset, self.names, self.lengths = dataset, [name], [length]

    def count(self, shard: int) -> tuple[int, str | None]:
        return self.lengths[shard], None

    def open(self, shard: int) -> Cursor:
        records = ((image, label_of(target)) for image, target in self.dataset)
        return IteratedCursor(records, self.names[shard])


class IteratedCursor:
    """A cursor on an iterator of records that begins with the sample `first`."""

    def __init__(self, records: Iterator[Record | UnreadableImageError], name: str, first: int = 0) -> None:
        self.records, self.name, self.next = records, name, first

    def read(self, place: int) -> Record:
        record: Record | UnreadableImageError | None = None
        while self.next <= place:
            try:
                record = next(self.records)
            except StopIteration:
                raise LostShardError(f"it has only {self.next:,} samples") from None
            except Exception as error:  # readers raise almost any exception for a damaged file
                raise LostShardError(one_line(error)) from error
            self.next += 1
        if isinstance(record, UnreadableImageError):
            raise record
        if record is None:
            raise ValueError(f"{self.name}: sample {place} was passed already")
        return record

    def close(self) -> None:
        close = getattr(self.records, "close", None)
        if close is not None:
            close()


def label_of(target: Any) -> int | None:
    """A class as a number; None for a target that is none."""
    return int(target) if isinstance(target, Integral) and int(target) >= 0 else None


def counted(shards: Shards, most: int | None, strict: bool) -> tuple[list[int], dict[str, str]]:
    """The numbers of samples of the first shards, up to `most` samples, and why shards have none or too few.

    Several processes count a shard each. All of them must call this. Raises DataError KD420 with `strict`.
    """
    lengths: list[int] = []
    lost: dict[str, str] = {}
    while len(lengths) < len(shards.names) and (most is None or sum(lengths) < most):
        own = len(lengths) + number()
        with raise_together():
            found = shards.count(own) if own < len(shards.names) else (0, None)
            if strict and found[1] is not None:
                raise lost_shard(shards.names[own], found[1])
        for length, reason in gather(found)[: len(shards.names) - len(lengths)]:
            name = shards.names[len(lengths)]
            lengths.append(length)
            if reason is not None:
                lost[name] = reason
    return lengths, lost


def lost_shard(name: str, reason: str) -> DataError:
    """The error of a stream that must be whole."""
    return DataError("KD420", f"the shard {name} cannot be read: {reason}; restore it, or leave out |strict to skip it")
