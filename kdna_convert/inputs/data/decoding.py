"""Decode a picture to a net's input: its pixels, its mode, and timm's evaluation transform or a part at full size."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ...core.errors import DataError
from ...core.specs import DataConfig
from .cropping import FULL_SIZE, at_least, window

# The most pixels of an image: where Pillow warns of a decompression bomb. In RGB they are 268 MB.
MOST_PIXELS = 1024**3 // 4 // 3
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class UnreadableImageError(Exception):
    """One image cannot be decoded. The reader skips and lists it."""


class Decoder:
    """Turns a file or a PIL image into a net's input by timm's evaluation transform.

    Images are resized and cropped one by one, and normalized in batches: for small images that halves the time.
    `enlarged` counts those that had fewer pixels along an axis than the input. Raises DataError KD406 for an input that
    is no image.
    """

    def __init__(self, config: DataConfig) -> None:
        self.size, self.enlarged = min(config.input_size[1:], default=0), 0
        channels = config.input_size[0]
        if channels not in _MODES or len(config.input_size) != 3:
            raise DataError("KD406", f"images cannot become inputs of size {config.input_size}; pass tensors instead")
        self.mode = _MODES[channels]
        self.transform = _part_of(config) if config.crop_mode in FULL_SIZE else _timms_transform(config)
        self.mean_c11, self.std_c11 = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))

    def __call__(self, image: Any) -> Tensor:
        """uint8 (C, H, W). Raises UnreadableImageError."""
        try:
            pixels = picture(image, self.mode)
        except UnreadableImageError:
            raise
        except UnidentifiedImageError as error:
            raise UnreadableImageError("not an image") from error
        except Exception as error:  # decoders raise almost any exception for a damaged file
            raise UnreadableImageError(one_line(error)) from error
        self.enlarged += min(pixels.size) < self.size
        tensor: Tensor = self.transform(pixels)
        return tensor

    def finish(self, pixels_bchw: Tensor) -> Tensor:
        """uint8 to normalized float32: equal to the bit to torchvision's ToTensor and Normalize."""
        return pixels_bchw.float().div_(255).sub_(self.mean_c11).div_(self.std_c11)


def picture(image: Any, mode: str) -> Image.Image:
    """The decoded image in this mode. 16 bits per pixel are scaled to 8. Raises what decoders raise."""
    own = opened(image)
    if own.mode.startswith("I"):
        values = np.asarray(own, dtype=np.int64)
        scaled = values // 257 if values.max(initial=0) > 255 else values
        own = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    return own.convert(mode)


def opened(image: Any) -> Image.Image:
    """The image, its pixels not decoded yet. Raises UnreadableImageError for one above MOST_PIXELS."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened: Image.Image = image if isinstance(image, Image.Image) else Image.open(image)
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"KD411: more than {MOST_PIXELS:,} pixels; make it smaller") from None
    if opened.width * opened.height > MOST_PIXELS:
        size = f"{opened.width:,} x {opened.height:,} pixels"
        raise UnreadableImageError(f"KD411: {size}, more than {MOST_PIXELS:,}; make it smaller")
    return opened


def _timms_transform(config: DataConfig) -> Any:
    size: Any = config.input_size  # three numbers, as Decoder has checked
    return create_transform(
        size,
        is_training=False,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
        normalize=False,
    )


def _part_of(config: DataConfig) -> Any:
    """A part of the image at full size, as uint8 (C, H, W)."""
    height, width = config.input_size[1:]

    def cut(pixels: Image.Image) -> Tensor:
        large = at_least(pixels, width, height)
        tensor: Tensor = pil_to_tensor(window(large, config.crop_mode, width, height).cut(large))
        return tensor

    return cut


def one_line(error: Exception) -> str:
    """An exception in one line, for the list of skipped images."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]
