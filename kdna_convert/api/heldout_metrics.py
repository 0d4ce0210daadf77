"""Measure a net on the held-out images of a job: divergence from the original, or loss of accuracy in points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.errors import DataError, ModelError
from ..core.specs import required
from ..inputs.data import batches, check_classes
from ..stages.convert.fit import Measure
from ..stages.evaluate.accuracy import accuracy, divergence, divergence_from, logits
from .job import Job


def measure_of(job: Job) -> Measure | None:
    """The divergence of a net from the original on the held-out images; the original's logits are computed once."""
    if job.heldout is None:
        return None
    inputs = [inputs for inputs, _ in batches(job.heldout, job.recipe.calibration.batch)]
    return divergence_from(job.loaded.model, inputs)


def points_lost(job: Job) -> tuple[Callable[[nn.Module], float], str]:
    """A function for the points that a net loses on the held-out images, and what they are: "top-1" or "agreement".

    It is agreement if the images have no labels.

    Raises:
        DataError: KD401 if no images are held out.
        ModelError: KD308 for a net with one output, which has no classes.
    """
    if job.heldout is None:
        raise DataError("KD401", "a drop is measured on held-out images; pass --data, with calibration.heldout above 0")
    heldout = list(batches(job.heldout, job.recipe.calibration.batch))
    inputs = [images for images, _ in heldout]
    z0 = logits(job.loaded.model, inputs)
    parts = [labels for _, labels in heldout if labels is not None]
    if z0.shape[1] == 1:
        raise ModelError("KD308", "max_drop counts changed answers, and the net has one output; give a size instead")
    labels = torch.cat(parts) if len(parts) == len(heldout) and _fit_outputs(job, z0) else None

    def lost(net: nn.Module) -> float:
        z = logits(net, inputs)
        if labels is None:
            return 100 * (1 - required(divergence(z, z0).agreement))
        return 100 * (accuracy(z0, labels)[0] - accuracy(z, labels)[0])

    return lost, "agreement" if labels is None else "top-1"


def _fit_outputs(job: Job, logits_bc: Tensor) -> bool:
    """Whether the folders' classes are the net's outputs."""
    if job.heldout is None or logits_bc.ndim != 2:
        return False
    try:
        check_classes(job.heldout, logits_bc.shape[1])
    except DataError:
        return False
    return True
