"""The held-out images of a fine-tune: the loss that chooses the best step, and the divergence."""

from __future__ import annotations

from torch import Tensor, nn

from ...core.measurements import Divergence
from ...inputs.data import Images, Inputs, Reading, concat_labels, mixer
from ...inputs.finetune_settings import Settings
from ..evaluate.accuracy import divergence, logits
from .loss import label_error


class Validation:
    """Measures the student on held-out images. Without these, every result is None.

    `first` and `before` are the loss and the divergence before the first step.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, held: Images | None, settings: Settings) -> None:
        self.model, self.held, self.settings = model, held, settings
        self.mix = mixer(settings.mixup)
        self.labels: Tensor | None = None
        self.plain = self.mixed = None if held is None else logits(teacher, self._inputs(held, mixed=False))
        if held is not None and settings.mixup:
            self.mixed = logits(teacher, self._inputs(held, mixed=True))
        self.before: Divergence | None = None
        self.first: float | None = None
        if held is not None and self.plain is not None and self.mixed is not None:
            z = logits(model, self._inputs(held, mixed=False))
            self.before = divergence(z, self.plain)
            self.first = self.loss() if settings.mixup else self._loss_of(z, self.mixed, held)

    def divergence(self) -> Divergence | None:
        """The divergence from the teacher, on unmixed images."""
        if self.held is None or self.plain is None:
            return None
        return divergence(logits(self.model, self._inputs(self.held, mixed=False)), self.plain)

    def loss(self) -> float | None:
        """The distance from the teacher (Divergence.distance), plus the weighted cross-entropy if labels are used.

        With mixup it is measured on mixed images. On plain images similar to the training images both nets are certain
        and agree.
        """
        if self.held is None or self.mixed is None:
            return None
        z = logits(self.model, self._inputs(self.held, mixed=bool(self.settings.mixup)))
        return self._loss_of(z, self.mixed, self.held)

    def _loss_of(self, z: Tensor, target: Tensor, held: Images) -> float:
        loss = divergence(z, target).distance
        if self.settings.label_weight:
            loss += self.settings.label_weight * float(label_error(z, self._labels(held)))
        return loss

    def _labels(self, held: Images) -> Tensor:
        """The labels of the readable images. They are cached, since this reads all images."""
        if self.labels is None:
            parts = [labels for _, labels in Reading(held, self.settings.batch_size) if labels is not None]
            self.labels = concat_labels(parts)
        return self.labels

    def _inputs(self, held: Images, *, mixed: bool) -> Inputs:
        return Inputs(Reading(held, self.settings.batch_size), self.mix if mixed else None)
