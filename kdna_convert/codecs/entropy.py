"""Integers as bytes, by an adaptive entropy coder: `constriction`'s asymmetric numeral systems (arXiv 0902.0271).

The integers of all tensors are coded together, in passes that each take a share of every tensor. What earlier passes
hold gives every integer an expected magnitude (expectation.py); those of like expectation form a bucket, and each
bucket has a histogram of its own, counted as it goes. So nothing is sent but the integers and one number a tensor, and
a pass is one call of the coder for each bucket, however many tensors there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ..errors import FolderError
from ..specs import Shape, product
from .expectation import BUCKETS, Index, Integers, Matrix, bucket_of, middles

Categorical, Uniform, AnsCoder = stream.model.Categorical, stream.model.Uniform, stream.stack.AnsCoder

# Larger integers are refused: a step so fine stores more than the floats that it replaces.
LARGEST = 1 << 22
# How much of every tensor is coded after each pass.
_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
# Histograms have a bin for each of -CAP..CAP; the outermost open outwards.
_CAP = 20
_BINS = 2 * _CAP + 1
# How many integers a bucket is thought to have seen before it has seen one.
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
    """The inverse of encode. Raises FolderError KD608 for a stream that is not one for these shapes.

    That much the coder itself notices; a stream altered in its middle may pass as other integers, so files carry a
    digest (container.py).
    """
    flat = np.zeros(sum(map(product, shapes)), np.int32)
    reader = _Reader(data)
    parts = _code(reader, shapes, flat)
    reader.finish()
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


class _Coder(Protocol):
    """Both directions as one: what is known is written and returned, what is not is read."""

    def chosen(self, matrices: Sequence[Matrix], order: Index) -> Integers:
        """The integers at the places that the matrices chose, in that order: as far as they are known."""
        ...

    def plain(self, known: Integers, size: int) -> Integers:
        """Integers of 0..size-1, all equally likely."""
        ...

    def part(self, table: Any, shift: int, known: Integers) -> Integers:
        """The integers of one bucket: each in units of 2^shift by the table, then its lower bits."""
        ...


def _code(coder: _Coder, shapes: Sequence[Shape], flat: Integers) -> list[Integers]:
    """Pass all integers through the coder, in place; returns those of each tensor."""
    ends = np.cumsum([0, *map(product, shapes)])
    parts = [flat[start:end] for start, end in pairwise(ends)]
    full = [(shape, part) for shape, part in zip(shapes, parts, strict=True) if len(part)]
    if not full:
        return parts
    magnitudes = np.array([np.abs(part).sum(dtype=np.int64) / len(part) for _, part in full], np.float32)
    scales = coder.plain(bucket_of(magnitudes).astype(np.int32), BUCKETS)
    matrices = [Matrix(shape, part, _MIDDLES[scale]) for (shape, part), scale in zip(full, scales, strict=True)]
    counts = _BELIEVED.copy()
    for share in _SHARES:
        _pass(coder, matrices, counts, share)
    return parts


def _pass(coder: _Coder, matrices: Sequence[Matrix], counts: NDArray[np.float64], share: float) -> None:
    """Code what is missing of `share` of every tensor."""
    for matrix in matrices:
        matrix.choose(share)
    bucket = np.concatenate([matrix.buckets() for matrix in matrices])
    order = np.argsort(bucket, kind="stable")
    values = coder.chosen(matrices, order)
    lengths = np.bincount(bucket, minlength=BUCKETS)
    ends = np.cumsum(lengths)
    for which in np.flatnonzero(lengths):
        part = slice(ends[which] - lengths[which], ends[which])
        shift = int(_SHIFTS[which])
        values[part] = coder.part(Categorical(counts[which], perfect=False), shift, values[part])
        counts[which] += np.bincount(_bins(values[part] >> shift), minlength=_BINS)
    found = np.empty_like(values)
    found[order] = values
    start = 0
    for matrix in matrices:
        end = start + len(matrix.place)
        matrix.learn(found[start:end])
        start = end


def _bins(coarse: Integers) -> Integers:
    return np.clip(coarse, -_CAP, _CAP) + _CAP


def _believed() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What each bucket is thought to have counted, two-sided geometric; how many low bits of its integers are plain.

    Those of large integers are as good as even; histograms are then of integers in units of 2^shift.
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
    """Collects what is to be coded: a coder that works as a stack is filled from the end."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Integers, Any]] = []

    def chosen(self, matrices: Sequence[Matrix], order: Index) -> Integers:
        return np.concatenate([matrix.values.take(matrix.place) for matrix in matrices]).take(order)

    def plain(self, known: Integers, size: int) -> Integers:
        if len(known) and size > 1:
            self.pieces.append((known, Uniform(size)))
        return known

    def part(self, table: Any, shift: int, known: Integers) -> Integers:
        coarse = known >> shift
        bins = _bins(coarse)
        self.pieces.append((bins, table))
        excess = np.abs(coarse[(bins == 0) | (bins == _BINS - 1)]) - _CAP
        lengths = self.plain(np.frexp(excess.astype(np.float64))[1].astype(np.int32), _LENGTHS)
        for length in np.unique(lengths[lengths > 1]):
            self.plain(excess[lengths == length] - (1 << (length - 1)), 1 << (int(length) - 1))
        self.plain(known & ((1 << shift) - 1), 1 << shift)
        return known

    def finish(self) -> bytes:
        coder = AnsCoder()
        for symbols, model in reversed(self.pieces):
            coder.encode_reverse(np.ascontiguousarray(symbols, np.int32), model)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class _Reader:
    """The way back. A stream that is not the writer's may yield anything, but rarely leaves the coder empty."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4 or data[-4:] == b"\0\0\0\0":
            raise FolderError("KD608", _DAMAGED)
        self.coder = AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def chosen(self, matrices: Sequence[Matrix], order: Index) -> Integers:
        return np.zeros(len(order), np.int32)

    def plain(self, known: Integers, size: int) -> Integers:
        if len(known) and size > 1:
            found: Integers = self.coder.decode(Uniform(size), len(known))
            return found
        return np.zeros_like(known)

    def part(self, table: Any, shift: int, known: Integers) -> Integers:
        coarse: Integers = self.coder.decode(table, len(known)) - _CAP
        outside = np.flatnonzero(np.abs(coarse) == _CAP)
        lengths = self.plain(coarse[outside], _LENGTHS)
        excess = np.minimum(lengths, 1)
        for length in np.unique(lengths[lengths > 1]):
            where = np.flatnonzero(lengths == length)
            excess[where] = self.plain(lengths[where], 1 << (int(length) - 1)) + (1 << (length - 1))
        coarse[outside] += np.where(coarse[outside] < 0, -excess, excess)
        return (coarse << shift) + self.plain(known, 1 << shift) if shift else coarse

    def finish(self) -> None:
        if not self.coder.is_empty():
            raise FolderError("KD608", _DAMAGED)
