"""Kernels as small pictures: a grey montage with zero in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.amounts import count, dimensions
from ..core.specs import Shape, product
from .pixels import png_uri

Kernel = NDArray[Any]

# The most tiles down and across, of tiles of several pixels and of single numbers, and the most pixels of a side.
TILES, NUMBERS, SIDE = 8, 32, 64
# Pixels of the screen that a picture's larger side takes, at most.
SHOWN = 192
# Values beyond this quantile have the color of the largest: one outlier would leave the rest grey.
QUANTILE = 0.995
# The grey of zero. 0 is transparent, and 1 and 255 are as far from it.
_ZERO = 128


@dataclass(frozen=True)
class Picture:
    """A montage of kernels.

    Attributes:
        uri: The PNG.
        width: In pixels.
        height: In pixels.
        what: Which filters and channels are shown.
        scale: The value that is white; its negative is black.
    """

    uri: str
    width: int
    height: int
    what: str
    scale: float

    @property
    def zoom(self) -> int:
        """How many pixels of the screen a pixel takes."""
        return max(1, SHOWN // max(self.width, self.height))


@dataclass(frozen=True)
class TensorPicture:
    """A stored tensor: its letter in the scheme's formula, its shape, and its values.

    `values` are the smallest, the largest and the norm. `distinct` counts the indices that occur, None for a tensor of
    other numbers.
    """

    letter: str
    shape: Shape
    values: tuple[float, float, float]
    distinct: int | None = None
    picture: Picture | None = None

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return product(self.shape)


@dataclass(frozen=True)
class MemberPictures:
    """A layer of a family before and after, on one scale.

    Attributes:
        name: The layer's.
        shape: Its kernel's.
        before: None without the original.
        after: The kernel that its tensors describe.
        difference: After less before.
        changed: The energy of the difference as a share of that of the kernel before.
        adapter: The tensors of its own.
    """

    name: str
    shape: Shape
    before: Picture | None
    after: Picture
    difference: Picture | None
    changed: float | None
    adapter: tuple[TensorPicture, ...]


@dataclass(frozen=True)
class FamilyPictures:
    """A family, by its first member: the shared tensors, and some of its layers."""

    owner: str
    shared: tuple[TensorPicture, ...]
    members: tuple[MemberPictures, ...]


def pictures_of(*kernels: Kernel, axes: tuple[str, str] = ("filter", "channel")) -> list[Picture]:
    """Pictures of kernels (out, in, *taps) of one shape, on a common scale. `axes` are the words for out and in."""
    picked = [_picked(kernel) for kernel in kernels]
    largest = max(_size(tiles) for tiles in picked)
    what = _what(kernels[0].shape, axes)
    return [_drawn(tiles, largest, what) for tiles in picked]


def _size(tiles: Kernel) -> float:
    """The size of the largest values that are finite."""
    finite = tiles[np.isfinite(tiles)]
    return float(np.quantile(np.abs(finite), QUANTILE)) if finite.size else 0.0


def evenly(number: int, most: int) -> list[int]:
    """At most `most` places of so many, evenly spread, the first and the last among them."""
    return [*dict.fromkeys(np.linspace(0, number - 1, min(number, most)).round().astype(int).tolist())]


def _grid(shape: Shape) -> tuple[int, int]:
    """The most tiles down and across."""
    return (_most(_tile(shape)[0]), _most(_tile(shape)[1]))


def _most(pixels: int) -> int:
    return NUMBERS if pixels == 1 else max(1, min(TILES, SIDE // (pixels + 1)))


def _tile(shape: Shape) -> tuple[int, int]:
    """The pixels of one kernel, down and across. The slices of a kernel of three axes are side by side."""
    taps = [min(size, SIDE) for size in shape[2:]]
    if len(taps) < 2:
        return 1, taps[0] if taps else 1
    return taps[-2], min(SIDE, int(np.prod(taps[:-2])) * taps[-1])


def _picked(kernel: Kernel) -> Kernel:
    """The tiles (rows, columns, height, width). Filters of one channel fill the rows one after the other."""
    rows, columns = _grid(kernel.shape)
    out, channels = kernel.shape[:2]
    many = rows * columns if channels == 1 else rows
    tiles = kernel[np.ix_(evenly(out, many), evenly(channels, columns))]
    for axis, size in enumerate(kernel.shape[2:], 2):
        tiles = tiles.take(evenly(size, SIDE), axis)
    if tiles.ndim == 2 or tiles.ndim == 3:
        tiles = tiles.reshape(*tiles.shape[:2], 1, -1)
    elif tiles.ndim > 4:
        tiles = np.moveaxis(tiles, -2, 2)
        tiles = tiles.reshape(*tiles.shape[:3], -1)[..., :SIDE]
    if channels > 1 or len(tiles) <= rows:
        return tiles
    folded = np.full((-(-len(tiles) // columns) * columns, *tiles.shape[2:]), np.nan)
    folded[: len(tiles)] = tiles[:, 0]
    return folded.reshape(-1, columns, *tiles.shape[2:])


def _drawn(tiles: Kernel, scale: float, what: str) -> Picture:
    """Tiles of several pixels have a transparent line between them."""
    rows, columns, height, width = tiles.shape
    down, across = int(height > 1), int(width > 1)
    defined = np.isfinite(tiles)
    level = np.where(defined, tiles, 0.0) / (scale or 1.0)
    grey = np.where(defined, _ZERO + np.rint((_ZERO - 1) * level.clip(-1, 1)), 0).astype(np.uint8)
    framed = np.pad(grey, ((0, 0), (0, 0), (0, down), (0, across)))
    pixels = framed.transpose(0, 2, 1, 3).reshape(rows * (height + down), columns * (width + across))
    pixels = pixels[: pixels.shape[0] - down, : pixels.shape[1] - across]
    return Picture(png_uri(pixels), pixels.shape[1], pixels.shape[0], what, scale)


def _what(shape: Shape, axes: tuple[str, str]) -> str:
    """Such as: 8 of 64 filters down, 8 of 32 channels across, 3×3 each."""
    (rows, columns), (out, channels) = _grid(shape), shape[:2]
    size = int(np.prod(shape[2:]))
    some = " in part" if size > np.prod(_tile(shape)) else ""
    taps = f", {dimensions(shape[2:])} each{some}" if size > 1 else ""
    if channels == 1:
        return f"{_of(out, rows * columns, axes[0])}{taps}"
    return f"{_of(out, rows, axes[0])} down, {_of(channels, columns, axes[1])} across{taps}"


def _of(number: int, most: int, noun: str) -> str:
    nouns = noun if number == 1 else f"{noun}s"
    return f"{count(number)} {nouns}" if number <= most else f"{most} of {count(number)} {nouns}"
