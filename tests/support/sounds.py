"""Files of sound, and what a data set reads of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import wavfile
from torch import Tensor

from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import batches, open_images

SOUND = DataConfig((1, 64), (0.0,), (1.0,), sample_rate=8000)


def record(path: Path, values: Any, rate: int = 8000, dtype: Any = np.int16) -> Path:
    """Write samples in -1..1, (samples,) or (samples, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, dtype=np.float64)
    if np.dtype(dtype).kind == "i":
        array = (array * 2.0 ** (8 * np.dtype(dtype).itemsize - 1)).round()
    elif dtype == np.uint8:
        array = (array * 128 + 128).round()
    wavfile.write(path, rate, array.astype(dtype))
    return path


def noise(samples: int, channels: int = 1, seed: int = 0) -> Any:
    """Samples (samples, channels) in -0.5..0.5, on the grid of 8 bits."""
    drawn = np.random.RandomState(seed).uniform(-0.5, 0.5, (samples, channels))
    return (drawn * 128).round() / 128


def windows(folder: Path, config: DataConfig = SOUND) -> Tensor:
    """All inputs of a folder of sounds, in order."""
    return torch.cat([inputs for inputs, _ in batches(open_images(folder, config))])
