"""Integers such as a codebook's indices, coded by one adaptive histogram of all of them.

At the start, all values of their range are equally likely. After each piece the histogram counts the piece's values. So
uniform use takes log2 of the range's size for each, skewed use takes less, and no table is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ..core.errors import FolderError

# The most values of a histogram: with more there are seldom enough integers to learn from.
WIDEST = 1 << 16
# The number of pieces, and the count that each value starts with.
_PIECES, _BELIEF = 64, 1.0
_HEADER = np.dtype([("lowest", "<i8"), ("size", "<u4")])
_DAMAGED = "a coded stream is damaged; restore the file, or convert again"

Integers = NDArray[np.int64]


def encode(integers: Integers) -> bytes | None:
    """The lowest integer, the size of the range and a stream; None if the range is wider than WIDEST."""
    if not len(integers) or int(integers.max()) - int(integers.min()) >= WIDEST:
        return None
    lowest = int(integers.min())
    symbols = (integers - lowest).astype(np.int32)
    counts = np.full(int(symbols.max()) + 1, _BELIEF)
    coded: list[tuple[NDArray[np.int32], Any]] = []
    for piece in np.array_split(symbols, _PIECES):
        coded.append((piece, _model(counts)))
        counts += np.bincount(piece, minlength=len(counts))
    coder = stream.stack.AnsCoder()
    for piece, model in reversed(coded):
        if model is not None:
            coder.encode_reverse(np.ascontiguousarray(piece), model)
    return np.array((lowest, len(counts)), _HEADER).tobytes() + bytes(coder.get_compressed().astype("<u4").tobytes())


def decode(data: bytes, count: int) -> Integers:
    """The inverse of encode. Raises FolderError KD608 for a stream that does not hold `count` integers."""
    words = data[_HEADER.itemsize :]
    if len(data) < _HEADER.itemsize or len(words) % 4 or words[-4:] == b"\0\0\0\0":
        raise FolderError("KD608", _DAMAGED)
    lowest, size = (int(part) for part in np.frombuffer(data[: _HEADER.itemsize], _HEADER)[0])
    if not 0 < size <= WIDEST:
        raise FolderError("KD608", _DAMAGED)
    coder, counts = stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32)), np.full(size, _BELIEF)
    pieces = []
    for piece in np.array_split(np.zeros(count, np.int32), _PIECES):
        model = _model(counts)
        pieces.append(piece if model is None else coder.decode(model, len(piece)))
        counts += np.bincount(pieces[-1], minlength=size)
    if not coder.is_empty():
        raise FolderError("KD608", _DAMAGED)
    return np.concatenate(pieces).astype(np.int64) + lowest


def _model(counts: NDArray[np.float64]) -> Any:
    """The model of a histogram; None for a single value."""
    return stream.model.Categorical(counts, perfect=False) if len(counts) > 1 else None
