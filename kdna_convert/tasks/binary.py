"""Independent yes or no answers for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import DataError
from .classify import Classify
from .logits import described_labels, first_of
from .relative_error import errors
from .task import Outputs, Statistics


@dataclass(frozen=True)
class Binary(Classify):
    """Independent yes or no answers: one or several logits for every image. Labels: as many zeros and ones."""

    name: ClassVar[str] = "binary"
    points: ClassVar[tuple[str | None, str | None]] = ("accuracy", "agreement")

    def outputs(self, returned: object, images: int) -> Outputs:
        z = first_of(returned, images)
        return (z[:, None] if z.ndim == 1 else z,)

    def loss(self, outputs: Outputs, targets: Outputs, temperature: float) -> Tensor:
        return bernoulli_kl(outputs[0] / temperature, targets[0] / temperature).mean() * temperature**2

    def sampled(self, outputs: Outputs, generator: torch.Generator) -> Tensor | None:
        """As for classify, each answer of two classes."""
        z = outputs[0].flatten(1).reshape(-1, 1)
        return super().sampled((torch.cat([z, torch.zeros_like(z)], 1),), generator)

    def agreement(self, outputs: Outputs, targets: Outputs) -> Tensor:
        return ((outputs[0].detach() > 0) == (targets[0] > 0)).float().mean()

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        own = errors(outputs, targets)
        z, z0 = outputs[0].double().flatten(1), targets[0].double().flatten(1)
        same = ((z > 0) == (z0 > 0)).double().mean(1)
        return own | {"same": same.cpu(), "kl": bernoulli_kl(z, z0).mean(1).cpu()}

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        z = outputs[0]
        right = (z > 0) == (self._labels(z, labels) == 1)
        return {"accuracy": right.double().flatten(1).mean(1).cpu()}

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The cross-entropy of the sigmoids."""
        return F.binary_cross_entropy_with_logits(outputs[0], self._labels(outputs[0], labels).to(outputs[0].dtype))

    def _labels(self, z: Tensor, labels: Tensor) -> Tensor:
        if labels.numel() != z.numel() or not ((labels == 0) | (labels == 1)).all():
            needed = f"a label 0 or 1 for each of the outputs {tuple(z.shape)}"
            raise DataError("KD402", f"binary needs {needed}; got {described_labels(labels)}")
        return labels.to(z.device).reshape(z.shape)


def bernoulli_kl(z: Tensor, z0: Tensor) -> Tensor:
    """KL(original || net) of every sigmoid, in nats."""
    p0 = torch.sigmoid(z0)
    return p0 * (F.logsigmoid(z0) - F.logsigmoid(z)) + (1 - p0) * (F.logsigmoid(-z0) - F.logsigmoid(-z))
