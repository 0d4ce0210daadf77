"""The images that a net is measured on, opened and checked, and the task by which it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.specs import DataConfig
from ..inputs.data import Images, Inputs, Reading
from ..tasks import Task
from .net_task import task_of
from .nets import check_labels, device_of_name, require_inputs, task_batches
from .splits import images_of


@dataclass(frozen=True)
class MeasuredImages:
    """The images, their batches with the labels that the task has, the task, and where the net runs."""

    images: Images
    stream: Reading | Inputs
    task: Task
    device: torch.device

    @property
    def skipped(self) -> tuple[str, ...]:
        """The images that could not be read, once a pass is over."""
        self.images.gather_skipped()
        return tuple(self.images.skipped)


def measured_images(
    net: nn.Module,
    original: nn.Module | None,
    config: DataConfig,
    data: Any,
    options: Mapping[str, Any],
    *,
    limit: int | None,
    seed: int,
    batch: int,
) -> MeasuredImages:
    """Open the images on which a net and its original are measured.

    Args:
        net: The net.
        original: Its original, if it is compared with it.
        config: How an image becomes an input.
        data: A path, or opened images.
        options: class_map, task, outputs and device, as for `evaluate`.
        limit: Use only this number of images, drawn with `seed`.
        seed: Of the draw.
        batch: Images per batch.

    Raises:
        DataError: KD401 without images, KD402 if the labels are not of the net's classes, KD406 for other inputs.
        ModelError: KD308 for outputs of another task, KD313 if several tasks fit.
    """
    images = images_of(data, config, options.get("class_map"), limit, seed)
    require_inputs(net, images, original)
    task = task_of(net, config, options).task
    check_labels(images, net, config, task)
    device = device_of_name(options.get("device") or "auto")
    return MeasuredImages(images, task_batches(images, batch, task), task, device)
