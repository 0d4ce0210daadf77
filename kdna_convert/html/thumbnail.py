"""A picture as a data URI of few bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from ..core.disagreement import Pixels

# Tried in turn until the picture is small enough; the first loses nothing.
_QUALITIES = (None, 85, 70, 50, 30, 10)
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Thumbnail:
    """The address of a picture that is in the page itself, and its size in pixels."""

    address: str
    width: int
    height: int


def thumbnail(pixels: Pixels, most: int) -> Thumbnail:
    """A picture as WebP of at most about `most` bytes, before they are written in base64."""
    from PIL import Image

    image = Image.frombytes(_MODES[pixels.channels], (pixels.width, pixels.height), pixels.values)
    data = b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", lossless=quality is None, quality=quality or 80, method=4)
        data = file.getvalue()
        if len(data) <= most:
            break
    return Thumbnail("data:image/webp;base64," + base64.b64encode(data).decode(), pixels.width, pixels.height)
