"""Inputs made from images, the image itself the target: `x4` smaller, `noise25`, `jpeg40`, or several, as x4,jpeg40."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...core.errors import DataError

_FORM = re.compile(r"(x|noise|jpeg)(\d+)")


@dataclass(frozen=True)
class Degradation:
    """How an input is made from its target.

    Attributes:
        factor: The input is so many times smaller, by bicubic interpolation.
        noise: The standard deviation of Gaussian noise, of 255.
        jpeg: The quality of a JPEG that the input is stored as; 0: none.
    """

    factor: int = 1
    noise: int = 0
    jpeg: int = 0

    def __call__(self, target: Image.Image) -> Image.Image:
        """The input. Its noise depends on the image only."""
        image = target.resize((target.width // self.factor, target.height // self.factor), Image.Resampling.BICUBIC)
        if self.noise:
            pixels = np.asarray(image, dtype=np.float32)
            drawn = np.random.RandomState(zlib.crc32(image.tobytes())).normal(0, self.noise, pixels.shape)
            image = Image.fromarray((pixels + drawn).round().clip(0, 255).astype(np.uint8), image.mode)
        if self.jpeg:
            stored = io.BytesIO()
            image.save(stored, "JPEG", quality=self.jpeg)
            image = Image.open(stored).convert(target.mode)
        return image


def is_degradation(text: str) -> bool:
    """Whether this is how inputs are made, and not a path."""
    return all(_FORM.fullmatch(part) for part in text.split(","))


def degradation(text: str) -> Degradation:
    """Read `x4`, `noise25`, `jpeg40` or several with commas. Raises DataError KD412 for other values."""
    parts = [_FORM.fullmatch(part) for part in text.split(",")]
    given = {part[1]: int(part[2]) for part in parts if part is not None}
    own = Degradation(given.get("x", 1), given.get("noise", 0), given.get("jpeg", 0))
    allowed = 1 <= own.factor <= 16 and own.noise <= 255 and 1 <= given.get("jpeg", 1) <= 100
    if not allowed or len(given) < len(parts):
        raise DataError("KD412", f"{text}: write x1 to x16, noise0 to noise255 and jpeg1 to jpeg100, each at most once")
    return own
