"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.measurements import Divergence
from .classify import Classify
from .logits import first_of, require_labels
from .structure import wrong_outputs
from .task import Outputs, Statistics

# The label of a pixel without a class, as in VOC and COCO.
IGNORED = 255


@dataclass(frozen=True)
class Segment(Classify):
    """A class for every pixel: logits (images, classes, height, width). Labels: masks (images, height, width)."""

    name: ClassVar[str] = "segment"
    points: ClassVar[tuple[str | None, str | None]] = ("miou", "miou")

    def outputs(self, returned: object, images: int) -> Outputs:
        z = first_of(returned, images)
        if z.ndim < 3 or z.shape[1] < 2:
            raise wrong_outputs(self.name, "logits (images, classes, height, width)", returned)
        return (z,)

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        classes = outputs[0].shape[1]
        return super().compare(outputs, targets) | overlap(outputs[0].argmax(1), targets[0].argmax(1), classes)

    def divergence(self, statistics: Statistics) -> Divergence:
        own = super().divergence(statistics)
        return Divergence(own.agreement, own.kl, own.logit_error, own.images, {"miou": mean_iou(statistics)}, self.name)

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        """Intersections and unions of every class, and the pixels that are right and that count. 255 is ignored."""
        z, labels = outputs[0], self._masks(outputs[0], labels)
        answers, counted = z.argmax(1), labels != IGNORED
        right = ((answers == labels) & counted).flatten(1).sum(1).double().cpu()
        sums = {"right": right, "counted": counted.flatten(1).sum(1).double().cpu()}
        return overlap(answers, labels, z.shape[1], counted) | sums

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The cross-entropy of the pixels that have a class."""
        return F.cross_entropy(outputs[0], self._masks(outputs[0], labels), ignore_index=IGNORED)

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        counted = float(statistics["counted"].sum())
        if not counted:
            return {}
        return {"miou": mean_iou(statistics), "pixel_accuracy": float(statistics["right"].sum()) / counted}

    def _masks(self, z: Tensor, labels: Tensor) -> Tensor:
        require_labels(labels, (len(z), *z.shape[2:]), z.shape[1], IGNORED)
        return labels.to(z.device)


def overlap(answers: Tensor, labels: Tensor, classes: int, counted: Tensor | None = None) -> Statistics:
    """The pixels of every image and class in both maps (images, ...), and in one of them: (images, classes)."""
    counted = torch.ones_like(labels, dtype=torch.bool) if counted is None else counted
    both, either = [], []
    for own, other, mask in zip(answers, labels, counted, strict=True):
        own, other = own[mask], other[mask]
        hit = torch.bincount(own[own == other], minlength=classes)
        sizes = torch.bincount(own, minlength=classes) + torch.bincount(other, minlength=classes)
        both.append(hit.double().cpu())
        either.append((sizes - hit).double().cpu())
    return {"both": torch.stack(both), "either": torch.stack(either)}


def mean_iou(statistics: Statistics) -> float:
    """The mean over the classes that occur of intersection / union, each over all images."""
    both, either = statistics["both"].sum(0), statistics["either"].sum(0)
    return float((both[either > 0] / either[either > 0]).mean())
