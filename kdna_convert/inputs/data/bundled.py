"""DATA that comes with kdna: `kdna:digits/train` and `kdna:digits/test`, scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...core.errors import DataError
from ...core.specs import DataConfig
from ..digits import digit_pixels
from .memory import TensorSource
from .sources import Classes

PREFIX = "kdna:"
TRAIN, TEST = "kdna:digits/train", "kdna:digits/test"


def open_bundled(name: str, config: DataConfig, class_map: Classes | None = None) -> TensorSource:
    """The labeled images of a bundled data set, normalized by `config`'s mean and std.

    Images of another size than 8x8 are interpolated (bilinear). More than one channel repeats the gray value.

    Args:
        name: `kdna:digits/train` (1,257 images) or `kdna:digits/test` (540 images).
        config: The net's input, (channels, height, width) with its mean and std.
        class_map: Not supported, since the labels are the digits themselves.

    Raises:
        DataError: KD401 for an unknown name, KD402 for a class map, KD406 for an input that is not an image.
    """
    if name not in (TRAIN, TEST):
        raise DataError("KD401", f"there is no bundled data set {name!r}; use {TRAIN} or {TEST}")
    if class_map is not None:
        raise DataError("KD402", f"{name} is labeled with the digits 0 to 9; leave out the class map")
    if len(config.input_size) != 3:
        raise DataError("KD406", f"{name} holds images, which cannot become inputs of size {config.input_size}")
    channels, *size = config.input_size
    pixels_bchw, labels_b = digit_pixels("train" if name == TRAIN else "test")
    if tuple(size) != pixels_bchw.shape[2:]:
        pixels_bchw = F.interpolate(pixels_bchw, size=size, mode="bilinear", antialias=True)
    mean_c11, std_c11 = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    inputs_bchw = (pixels_bchw.expand(-1, channels, -1, -1) - mean_c11) / std_c11
    return TensorSource(inputs_bchw, labels_b, {str(digit): digit for digit in range(10)})
