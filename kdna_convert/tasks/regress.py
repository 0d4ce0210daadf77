"""One or several numbers for every image: ages, counts, key points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.errors import DataError
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
        if labels.numel() != z.numel():
            raise DataError(
                "KD402", f"labels of shape {tuple(labels.shape)} for outputs of shape {tuple(z.shape)}; one per number"
            )
        return {"absolute": (z.double() - labels.to(z.device).reshape(z.shape).double()).abs().flatten(1).mean(1).cpu()}

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The mean squared error."""
        return (outputs[0] - labels.to(outputs[0]).reshape(outputs[0].shape)).square().mean()

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return {"mean_absolute_error": float(statistics["absolute"].mean())}
