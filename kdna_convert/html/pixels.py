"""Pixels as a PNG in a data URI, written without filters, so that the page's script can read the values back."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

_GREY, _PALETTE = 0, 3  # color types of PNG


def png_uri(pixels: Pixels, palette: Sequence[Color] = ()) -> str:
    """A data URI of pixels (height, width). The value 0 is transparent.

    Args:
        pixels: Levels of grey, or places in the palette.
        palette: The color of each value, None for levels of grey.
    """
    return "data:image/png;base64," + base64.b64encode(_png(pixels, palette)).decode()


def _png(pixels: Pixels, palette: Sequence[Color]) -> bytes:
    height, width = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _PALETTE if palette else _GREY, 0, 0, 0)
    colors = _chunk(b"PLTE", bytes(part for color in palette for part in color)) if palette else b""
    clear = _chunk(b"tRNS", b"\0" if palette else b"\0\0")
    rows = np.insert(pixels, 0, 0, axis=1)  # each row begins with the number of its filter
    data = _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + colors + clear + data + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
