"""The interface of a task: what a net's outputs mean, and how the outputs of two nets are compared.

outputs = run(task, net, inputs)                     # tensors with a row per image (forward.py)
statistics = task.compare(outputs, targets)          # per image, float64; rows of batches are concatenated
task.divergence(statistics)                          # what a report shows, and the distance that decides
task.loss(outputs, targets, temperature)             # the same, differentiable, for a fine-tune
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..core.measurements import Divergence

# The tensors of a net that are compared, each (images, ...).
Outputs = tuple[Tensor, ...]
# What is summed or averaged over images: tensors (images, ...) by name, float64, on the CPU.
Statistics = dict[str, Tensor]


@dataclass(frozen=True)
class Head:
    """A module that reads regions which the net proposes, with its first arguments by position.

    Attributes:
        module: Its name.
        argument: The position of the regions in its arguments.
        output: The module in it whose outputs are compared. They have a row for each region.
    """

    module: str
    argument: int
    output: str


class Task(Protocol):
    """What a net is for: a frozen dataclass.

    Attributes:
        name: The name in `TASKS`.
        points: The measure that `max_drop` counts with labels, and without; None where the task has none. A measure in
            percent counts in points, any other in its own unit.
    """

    name: ClassVar[str]
    points: ClassVar[tuple[str | None, str | None]]

    @property
    def pick(self) -> Callable[[Any], Any] | None:
        """The user's function that picks the output to compare from what the net returns; None: all of it."""
        ...

    def taps(self, net: nn.Module) -> tuple[str, ...]:
        """The modules whose outputs are compared in addition to what the net returns."""
        ...

    def tapped(self, net: nn.Module, values: Mapping[str, object]) -> Sequence[Tensor]:
        """The tensors to compare from what the taps returned, by their names."""
        ...

    def apart(self, net: nn.Module) -> tuple[str, ...]:
        """The modules whose inputs do not match those of another net, as the regions that a detector proposes."""
        ...

    def heads(self, net: nn.Module) -> tuple[Head, ...]:
        """The modules among `apart` that a fine-tune trains, both nets on the same regions."""
        ...

    def outputs(self, returned: object, images: int) -> Outputs:
        """The tensors to compare, from what the net returned for so many images. Differentiable.

        Raises:
            ModelError: KD308 for outputs of another task.
        """
        ...

    def loss(self, outputs: Outputs, targets: Outputs, temperature: float) -> Tensor:
        """The distance between the outputs of a net and of its teacher: a scalar, differentiable, 0 where equal."""
        ...

    def sampled(self, outputs: Outputs, generator: torch.Generator) -> Tensor | None:
        """A scalar whose squared gradients, on average over draws, are the curvature of the loss at equal outputs.

        None where no gradient is known.
        """
        ...

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The distance between outputs and labels, differentiable: what `label_weight` weighs.

        Raises:
            ModelError: KD308 where the task has none.
            DataError: KD402 for labels of another task.
        """
        ...

    def agreement(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """The share of images or positions, 0..1, with the same answer; NaN where the task has no answers."""
        ...

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        """The statistics of a net's outputs and those of the original."""
        ...

    def divergence(self, statistics: Statistics) -> Divergence:
        """How far the net is from the original, from the statistics of all images."""
        ...

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        """The statistics of a net's outputs and labels.

        Raises:
            DataError: KD402 for labels of another task.
        """
        ...

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        """The measures of all images by their name in core.measurements.MEASURES."""
        ...
