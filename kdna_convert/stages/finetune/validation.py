"""The held-out images of a fine-tune: the loss that chooses the best step, and the divergence."""

from __future__ import annotations

import torch

from ...core.measurements import Divergence
from ...inputs.data import Images, Inputs, Reading, mixer
from ...inputs.finetune_settings import Settings
from ...network.inference import evaluating
from ...tasks import Statistics
from ..evaluate.accuracy import divergence_from
from ..evaluate.outputs import PassedBatch, statistics
from .shared_regions import head_loss
from .student import Student


class Validation:
    """Measures the student on held-out images. Without these, every result is None.

    `first` and `before` are the loss and the divergence before the first step.
    """

    def __init__(self, student: Student, held: Images | None, settings: Settings) -> None:
        self.student, self.held, self.settings = student, held, settings
        self.mix = mix = mixer(settings.mixup)
        self.plain = self.mixed = None
        if held is not None:
            self.plain = divergence_from(student.teacher, Inputs(self._reading(held)), student.task)
        if held is not None and settings.mixup:
            self.mixed = divergence_from(student.teacher, Inputs(self._reading(held), mix), student.task)
        self.before = self.divergence()
        self.first = self.loss(self.before)

    def divergence(self) -> Divergence | None:
        """The divergence from the teacher, on unmixed images."""
        return None if self.plain is None else self.plain(self.student.model)

    def loss(self, plain: Divergence | None = None) -> float | None:
        """The distance from the teacher (Divergence.distance), plus that of heads and of labels where there are any.

        With mixup it is measured on mixed images. On plain images similar to the training images both nets are certain
        and agree. `plain` is the divergence on unmixed images, if it is known.
        """
        if self.held is None:
            return None
        if self.mixed is not None:
            measured: Divergence | None = self.mixed(self.student.model)
        else:
            measured = self.divergence() if plain is None else plain
        if measured is None:
            return None
        heads = self._head_loss(self.held) if self.student.heads else 0.0
        return measured.distance + heads + (self._label_loss(self.held) if self.settings.label_weight else 0.0)

    def _head_loss(self, held: Images) -> float:
        """The relative error of the heads on the teacher's regions, the mean over the batches."""
        student, losses = self.student, []
        with evaluating(student.teacher), evaluating(student.model):
            for inputs in Inputs(self._reading(held), self.mix):
                losses.append(head_loss(student.model, student.teacher, student.heads, inputs))
        return sum(losses) / len(losses)

    def _label_loss(self, held: Images) -> float:
        """The weighted distance from the labels, the mean over the images."""
        task = self.student.task

        def of(batch: PassedBatch) -> Statistics:
            if batch.labels is None:
                return {}
            loss = task.label_loss(batch.outputs[0], batch.labels)
            return {"loss": torch.full((len(batch.inputs),), float(loss), dtype=torch.float64)}

        rows = statistics([self.student.model], self._reading(held), of, task=task)
        return self.settings.label_weight * float(rows["loss"].mean())

    def _reading(self, held: Images) -> Reading:
        return Reading(held, self.settings.batch_size)
