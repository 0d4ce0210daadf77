"""Images of smooth noise, for benchmarks of speed that need no real ones. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise_images(place: Path, count: int, side: int) -> Path:
    """Write `count` images of `side` x `side` pixels, the same each time, and return their folder."""
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{number:04}.png")
    return place
