"""One or several numbers for every image: ages, counts, key points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.errors import DataError
from .logits import described_labels
from .raw import Raw
from .task import Outputs, Statistics


@dataclass(frozen=True)
class Regress(Raw):
    """One or several numbers for every image. Labels: as many numbers."""

    name: ClassVar[str] = "regress"

    def outputs(self, returned: object, images: int) -> Outputs:
        return tuple(each[:, None] if each.ndim == 1 else each for each in super().outputs(returned, images)[:1])

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        """The absolute errors."""
        z = outputs[0]
        return {"absolute": (z - self._numbers(z, labels)).double().abs().flatten(1).mean(1).cpu()}

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The mean squared error."""
        return (outputs[0] - self._numbers(outputs[0], labels)).square().mean()

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return {"mean_absolute_error": float(statistics["absolute"].mean())}

    def _numbers(self, z: Tensor, labels: Tensor) -> Tensor:
        if labels.numel() != z.numel():
            needed = f"a label for each of the outputs {tuple(z.shape)}"
            raise DataError("KD402", f"regress needs {needed}; got {described_labels(labels)}")
        return labels.to(z).reshape(z.shape)
