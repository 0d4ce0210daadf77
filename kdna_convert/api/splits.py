"""The images of a verb, opened and divided into calibration and held-out images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core.errors import DataError
from ..core.specs import DataConfig
from ..inputs.data import Images, Inputs, Reading, as_images, batches, input_shape, open_images, split
from ..inputs.recipe.schema import Calibration
from ..stages.convert.fit import Measure
from ..stages.evaluate.accuracy import divergence_from
from ..tasks import Task


@dataclass(frozen=True)
class ImageSplit:
    """Calibration and held-out images; both are read `batch` at a time."""

    whole: Images
    calibration: Images
    heldout: Images
    batch: int

    def calibration_inputs(self) -> list[Tensor]:
        """The calibration images as batches (B, C, H, W)."""
        return [inputs for inputs, _ in batches(self.calibration, self.batch)]

    def heldout_inputs(self) -> list[Tensor]:
        """The held-out images as batches; empty without held-out images."""
        return [inputs for inputs, _ in batches(self.heldout, self.batch)] if len(self.heldout) else []

    def divergence_from(self, net: nn.Module | None, task: Task) -> Measure | None:
        """A function for the divergence from this net on the held-out images; None without a net or images."""
        return None if net is None or not len(self.heldout) else divergence_from(net, self.heldout_inputs(), task)


def split_images(data: Any, config: DataConfig, class_map: Any, settings: Calibration, seed: int) -> ImageSplit:
    """Open DATA and draw the calibration and held-out images. At most a third of few images is held out.

    Args:
        data: a path, a tensor of inputs, or batches (see inputs/data).
        config: how an image becomes an input of the net.
        class_map: a file of class names, one per line, or None.
        settings: the numbers of calibration and held-out images, as in a recipe.
        seed: seed of the draw.

    Raises:
        DataError: KD401 if there is no image, and what opening the data raises.
    """
    images = images_of(data, config, class_map, None, seed)
    count, kept = settings.images, settings.heldout
    if len(images) < count + kept:
        kept = min(kept, len(images) // 3)
        count = min(count, len(images) - kept)
    calibration, heldout = split(images, [count, kept], seed)
    return ImageSplit(images, calibration, heldout, settings.batch)


def images_of(data: Any, config: DataConfig, class_map: Any, limit: int | None, seed: int) -> Images:
    """Open DATA and draw `limit` of its images with the seed.

    Raises:
        DataError: KD401 if there is no image, KD406 if tensors have other axes or channels than the net takes.
    """
    if isinstance(data, str | Path):
        return open_images(data, config, class_map=class_map, limit=limit, seed=seed)
    images = as_images(data, limit, seed)
    if not len(images):
        raise DataError("KD401", "the data holds no image")
    shape, own = input_shape(images), config.input_size
    if shape is not None and (len(shape) != len(own) or shape[0] != own[0]):
        way_out = "; pass a batch of inputs (N, channels, height, width)" if len(shape) < len(own) else ""
        raise DataError("KD406", f"DATA gives inputs of shape {shape}, and the net takes {own}{way_out}")
    return images


def digest_of(images: Images | None, batch: int) -> str:
    """The sha256 of the images' positions in the data and of the first batch of inputs."""
    if images is None:
        return "none"
    first = next(iter(Inputs(Reading(images, batch))))
    return hashlib.sha256(repr(images.positions).encode() + first.contiguous().numpy().tobytes()).hexdigest()
