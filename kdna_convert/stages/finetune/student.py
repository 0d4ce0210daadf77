"""The nets of a fine-tune, and the files that it writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...tasks import CLASSIFY, Head, Task
from .codes import Codes


@dataclass(frozen=True)
class Student:
    """The net that is trained in place, and the nets that it is compared with.

    Attributes:
        model: The net to train.
        original: The net that it was converted from.
        other_teacher: A teacher to use instead of the original.
        nested: The layers whose directions are ordered by importance.
        codes: The coded tensors, if they are trained.
        task: What the outputs of the nets mean.
    """

    model: nn.Module
    original: nn.Module
    other_teacher: nn.Module | None = None
    nested: Collection[str] = ()
    codes: Codes | None = None
    task: Task = CLASSIFY

    @property
    def teacher(self) -> nn.Module:
        """The net whose outputs are the target."""
        return self.original if self.other_teacher is None else self.other_teacher

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that read proposed regions, in both the model and its teacher."""
        own = self.task.heads(self.teacher)
        return tuple(head for head in self.task.heads(self.model) if head in own)

    @property
    def nets(self) -> tuple[nn.Module, ...]:
        """All nets, each once."""
        own = (self.model, self.original)
        return own if self.teacher is self.original else (*own, self.teacher)

    def to(self, device: torch.device) -> None:
        """Move the nets, in place."""
        for net in self.nets:
            net.to(device)


@dataclass(frozen=True)
class RunFiles:
    """Where a fine-tune writes: the folder of its state, a log of JSON lines, and a folder for TensorBoard.

    `mark` is the hash of everything that must match for `resume` to read the state.
    """

    work: Path | None = None
    resume: bool = False
    mark: str = ""
    log: Path | None = None
    track: Path | None = None
