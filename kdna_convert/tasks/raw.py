"""Any tensors, which have no further meaning to kdna: the relative error of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import DataError, ModelError
from ..core.measurements import Divergence
from .relative_error import errors, relative_error, relative_loss, sampled_values
from .structure import row_per_image, tensors_in
from .task import Head, Outputs, Statistics


@dataclass(frozen=True)
class Raw:
    """Any tensors: the relative error of each, which have no further meaning to kdna."""

    name: ClassVar[str] = "raw"
    pick: Callable[[Any], Any] | None = None
    points: ClassVar[tuple[str | None, str | None]] = (None, None)

    def taps(self, net: nn.Module) -> tuple[str, ...]:
        return ()

    def tapped(self, net: nn.Module, values: Mapping[str, object]) -> Sequence[Tensor]:
        return tensors_in(values)

    def apart(self, net: nn.Module) -> tuple[str, ...]:
        return ()

    def heads(self, net: nn.Module) -> tuple[Head, ...]:
        return ()

    def outputs(self, returned: object, images: int) -> Outputs:
        return row_per_image(tensors_in(returned), returned, images)

    def loss(self, outputs: Outputs, targets: Outputs, temperature: float) -> Tensor:
        return relative_loss(outputs, targets)

    def sampled(self, outputs: Outputs, generator: torch.Generator) -> Tensor | None:
        return sampled_values(outputs, generator)

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        raise ModelError("KD308", f"label_weight: the task {self.name} does not train on labels; leave it out")

    def agreement(self, outputs: Outputs, targets: Outputs) -> Tensor:
        return torch.full((), torch.nan)

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        return errors(outputs, targets)

    def divergence(self, statistics: Statistics) -> Divergence:
        return Divergence(None, None, relative_error(statistics), len(statistics["error"]), task=self.name)

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        raise DataError("KD402", f"the task {self.name} has no measure with labels; pass --metric file.py:function")

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return {}
