"""Integers as bytes by an adaptive entropy coder: `constriction`'s asymmetric numeral systems (arXiv 0902.0271).

The integers of all tensors are coded together, in passes that each take a share of every tensor. Earlier passes give
each integer an expected magnitude (expectation.py). Integers of similar expectation form a bucket, and each bucket has
an adaptive histogram of its own. So only the integers and one number for each tensor are stored, and a pass is one call
of the coder for each bucket, however many tensors there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ..core.errors import FolderError
from ..core.specs import Shape, product
from .expectation import BUCKETS, Alike, Index, Integers, bucket_of, middles
from .ordering import ByBucket

Categorical, Uniform, AnsCoder = stream.model.Categorical, stream.model.Uniform, stream.stack.AnsCoder

# The limit of magnitudes: with a finer step the integers take more bytes than the floats.
LARGEST = 1 << 22
# The share of every tensor that is coded after each pass.
_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
# Histograms have a bin for each of -CAP..CAP; the outermost open outwards.
_CAP = 20
_BINS = 2 * _CAP + 1
# The number of integers that a bucket's histogram starts with.
_BELIEF = 20.0
# Magnitudes beyond the bins have 0 to 22 bits.
_LENGTHS = 23
_DAMAGED = "a coded stream is damaged; restore the file, or convert again"


def encode(arrays: Sequence[Integers]) -> bytes:
    """The integers of all arrays, each below LARGEST in magnitude, as one stream of four-byte words."""
    flat = np.concatenate([np.zeros(0, np.int32), *(array.reshape(-1) for array in arrays)]).astype(np.int32)
    if flat.size and int(np.abs(flat).max()) >= LARGEST:
        raise ValueError(f"an integer of {int(np.abs(flat).max())} is too large to code")
    writer = _Writer()
    _code(writer, [array.shape for array in arrays], flat)
    return writer.finish()


def decode(data: bytes, shapes: Sequence[Shape]) -> list[Integers]:
    """The inverse of encode. Raises FolderError KD608 for a stream that does not fit these shapes.

    The coder detects no more than that: a stream altered in its middle can decode to other integers, so files carry a
    digest (network/packed.py).
    """
    flat = np.zeros(sum(map(product, shapes)), np.int32)
    reader = _Reader(data)
    parts = _code(reader, shapes, flat)
    reader.finish()
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


class _Coder(Protocol):
    """Both directions in one interface: a writer codes the known integers and returns them, a reader decodes them."""

    def scales(self, parts: Sequence[Integers]) -> Integers:
        """The bucket of the mean magnitude of each tensor; a reader passes zeros."""
        ...

    def chosen(self, places: Sequence[tuple[Integers, Index]], order: ByBucket) -> Integers:
        """The integers at these places of these flat tensors, in that order; a reader returns an empty array."""
        ...

    def plain(self, integers: Integers, size: int) -> Integers:
        """Integers of 0..size-1, all equally likely."""
        ...

    def part(self, table: Any, shift: int, integers: Integers) -> tuple[Integers, Index]:
        """The integers of one bucket, each in units of 2^shift by the table, then its lower bits; and how many fell
        into each bin of the table."""
        ...


def _code(coder: _Coder, shapes: Sequence[Shape], flat: Integers) -> list[Integers]:
    """Pass all integers through the coder, in place; returns those of each tensor."""
    ends = np.cumsum([0, *map(product, shapes)])
    parts = [flat[start:end] for start, end in pairwise(ends)]
    full = [(shape, part) for shape, part in zip(shapes, parts, strict=True) if len(part)]
    if not full:
        return parts
    means = _MIDDLES[coder.plain(coder.scales([part for _, part in full]), BUCKETS)]
    of_shape: dict[Shape, list[int]] = {}
    for number, (shape, _) in enumerate(full):
        of_shape.setdefault(shape, []).append(number)
    alike = [(own, Alike(shape, [full[each][1] for each in own], means[own])) for shape, own in of_shape.items()]
    counts = _BELIEVED.copy()
    for share in _SHARES:
        _pass(coder, alike, counts, share)
    return parts


def _pass(coder: _Coder, alike: Sequence[tuple[list[int], Alike]], counts: NDArray[np.float64], share: float) -> None:
    """Code every tensor up to `share` of it. The order of the tensors does not depend on their shapes."""
    sizes = np.zeros(sum(len(own) for own, _ in alike), np.int64)
    places: dict[int, tuple[Integers, Index]] = {}
    for own, tensors in alike:
        sizes[own] = tensors.choose(share)
        places |= {number: (values, tensors.place) for number, values in zip(own, tensors.values, strict=True)}
    slices = [slice(end - size, end) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
    bucket = np.empty(sizes.sum(), np.uint8)
    for own, tensors in alike:
        for number, own_bucket in zip(own, tensors.buckets(), strict=True):
            bucket[slices[number]] = own_bucket
    order = ByBucket(bucket)
    values = coder.chosen([places[number] for number in sorted(places)], order)
    _buckets(coder, order.lengths, values, counts)
    restored = order.restored(values)
    for own, tensors in alike:
        tensors.learn([restored[slices[number]] for number in own])


def _buckets(coder: _Coder, lengths: Index, values: Integers, counts: NDArray[np.float64]) -> None:
    """Code the integers of each bucket, in place. The buckets lie one after the other."""
    ends = np.cumsum(lengths)
    for which in np.flatnonzero(lengths):
        part = slice(ends[which] - lengths[which], ends[which])
        table = Categorical(counts[which], perfect=False)
        values[part], tally = coder.part(table, int(_SHIFTS[which]), values[part])
        counts[which] += tally


def _bins(coarse: Integers) -> Integers:
    return np.minimum(np.maximum(coarse, -_CAP), _CAP) + _CAP


def _believed() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The counts that each bucket starts with, two-sided geometric, and the number of its integers' low bits.

    The low bits of large integers are coded as uniform; the histogram is then of integers in units of 2^shift.
    """
    shifts = np.maximum(0, (np.arange(BUCKETS) >> 2) - 9)
    magnitude = _MIDDLES.astype(np.float64) / (1 << shifts)
    ratio = magnitude / (1 + magnitude)
    counts = np.empty((BUCKETS, _BINS))
    counts[:, _CAP] = _BELIEF * (1 - ratio) / (1 + ratio)
    for away in range(1, _CAP + 1):
        counts[:, _CAP + away] = counts[:, _CAP - away] = counts[:, _CAP + away - 1] * ratio
    return counts, shifts


_MIDDLES = middles()
_BELIEVED, _SHIFTS = _believed()


class _Writer:
    """Collects the integers to code, since a coder that works as a stack is filled from the end."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Integers, Any]] = []

    def scales(self, parts: Sequence[Integers]) -> Integers:
        means = np.array([np.abs(part).sum(dtype=np.int64) / len(part) for part in parts], np.float32)
        return bucket_of(means).astype(np.int32)

    def chosen(self, places: Sequence[tuple[Integers, Index]], order: ByBucket) -> Integers:
        return order.sorted(np.concatenate([values.take(place, mode="clip") for values, place in places]))

    def plain(self, integers: Integers, size: int) -> Integers:
        if len(integers) and size > 1:
            self.pieces.append((integers, Uniform(size)))
        return integers

    def part(self, table: Any, shift: int, integers: Integers) -> tuple[Integers, Index]:
        coarse = integers >> shift
        bins = _bins(coarse)
        self.pieces.append((bins, table))
        excess = np.abs(coarse[(bins == 0) | (bins == _BINS - 1)]) - _CAP
        lengths = self.plain(np.frexp(excess.astype(np.float64))[1].astype(np.int32), _LENGTHS)
        for length in np.unique(lengths[lengths > 1]):
            self.plain(excess[lengths == length] - (1 << (length - 1)), 1 << (int(length) - 1))
        self.plain(integers & ((1 << shift) - 1), 1 << shift)
        return integers, np.bincount(bins, minlength=_BINS)

    def finish(self) -> bytes:
        coder = AnsCoder()
        for symbols, model in reversed(self.pieces):
            coder.encode_reverse(np.ascontiguousarray(symbols, np.int32), model)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class _Reader:
    """Decodes. A stream of another origin can give any integers, but rarely leaves the coder empty."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4 or data[-4:] == b"\0\0\0\0":
            raise FolderError("KD608", _DAMAGED)
        self.coder = AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def scales(self, parts: Sequence[Integers]) -> Integers:
        return np.zeros(len(parts), np.int32)

    def chosen(self, places: Sequence[tuple[Integers, Index]], order: ByBucket) -> Integers:
        return np.empty(order.size, np.int32)

    def plain(self, integers: Integers, size: int) -> Integers:
        if len(integers) and size > 1:
            decoded: Integers = self.coder.decode(Uniform(size), len(integers))
            return decoded
        return np.zeros_like(integers)

    def part(self, table: Any, shift: int, integers: Integers) -> tuple[Integers, Index]:
        coarse: Integers = self.coder.decode(table, len(integers))
        tally = np.bincount(coarse, minlength=_BINS)
        coarse -= _CAP
        if tally[0] or tally[-1]:
            outside = np.flatnonzero(np.abs(coarse) == _CAP)
            coarse[outside] += np.sign(coarse[outside]) * self._excess(len(outside))
        return ((coarse << shift) + self.plain(integers, 1 << shift) if shift else coarse), tally

    def _excess(self, count: int) -> Integers:
        """The parts of magnitudes beyond the bins."""
        lengths = self.plain(np.zeros(count, np.int32), _LENGTHS)
        excess = np.minimum(lengths, 1)
        for length in np.unique(lengths[lengths > 1]):
            where = np.flatnonzero(lengths == length)
            excess[where] = self.plain(lengths[where], 1 << (int(length) - 1)) + (1 << (length - 1))
        return excess

    def finish(self) -> None:
        if not self.coder.is_empty():
            raise FolderError("KD608", _DAMAGED)
