"""Logits: where they are in what a net returns, their KL divergence, and the labels that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ..core.errors import DataError
from .structure import row_per_image, tensors_in


def first_of(returned: object, images: int) -> Tensor:
    """The logits: `logits` or `out` of a mapping, or the first tensor. Raises ModelError KD308."""
    if isinstance(returned, Mapping):
        named = next((returned[key] for key in ("logits", "out") if key in returned), returned)
        return row_per_image(tensors_in(named), returned, images)[0]
    return row_per_image(tensors_in(returned)[:1], returned, images)[0]


def kl_rows(z: Tensor, z0: Tensor) -> Tensor:
    """KL(original || net) of every image, the mean over positions, (images,). Logits (images, classes, ...)."""
    log_p, log_p0 = F.log_softmax(z, dim=1), F.log_softmax(z0, dim=1)
    return (log_p0.exp() * (log_p0 - log_p)).sum(1).reshape(len(z), -1).mean(1)


def distillation(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || output) at temperature T of logits (B, classes, ...): the mean over all axes but the classes.

    Hinton et al. 2015, arXiv 1503.02531.
    """
    log_p = F.log_softmax(output / temperature, dim=1)
    log_p0 = F.log_softmax(target / temperature, dim=1)
    return (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean() * temperature**2


def require_labels(labels: Tensor, shape: Sequence[int], classes: int, ignored: int | None = None) -> None:
    """Raise DataError KD402 for labels of another shape or beyond the outputs."""
    single = len(shape) == 1
    if tuple(labels.shape) != tuple(shape) or labels.is_floating_point():
        what = "one label per image" if single else "a mask of the output's size per image"
        raise DataError("KD402", f"{what} is needed, whole numbers {tuple(shape)}; got {described_labels(labels)}")
    counted = labels if ignored is None else labels[labels != ignored]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= classes):
        mismatch = f"labels {int(counted.min())}..{int(counted.max())}, and the net has {classes} outputs"
        raise DataError(
            "KD402", f"the images have {mismatch}{'; map classes to outputs by --class-map' if single else ''}"
        )


def described_labels(labels: Tensor) -> str:
    return f"{str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}"
