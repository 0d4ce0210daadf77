"""Parts of images at full size: `middle`, or `random`, which depends on the image only. No pixel is resized.

A net that restores details is calibrated on these: resizing would remove the details. An image that is smaller than the
part is enlarged first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

from PIL import Image

FULL_SIZE = ("middle", "random")


@dataclass(frozen=True)
class Window:
    """The left upper corner and the size of a part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def times(self, factor: int) -> Window:
        """The same part of an image that is `factor` times as large."""
        return Window(self.left * factor, self.top * factor, self.width * factor, self.height * factor)

    def cut(self, image: Image.Image) -> Image.Image:
        return image.crop((self.left, self.top, self.left + self.width, self.top + self.height))


def at_least(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image, enlarged by bicubic interpolation if it is smaller."""
    scale = max(width / image.width, height / image.height)
    if scale <= 1:
        return image
    return image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))))


def window(image: Image.Image, mode: str, width: int, height: int) -> Window:
    """The part of this size. A random one is the same in every run."""
    left, top = image.width - width, image.height - height
    if mode == "random":
        draw = Random(zlib.crc32(image.tobytes()))
        left, top = draw.randint(0, left), draw.randint(0, top)
    else:
        left, top = left // 2, top // 2
    return Window(left, top, width, height)
