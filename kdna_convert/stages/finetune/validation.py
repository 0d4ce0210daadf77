"""The held-out images of a fine-tune: the loss that chooses the best step, and the divergence."""

from __future__ import annotations

from torch import Tensor, nn

from ...core.measurements import Divergence
from ...inputs.data import Images, Inputs, Reading, concat_labels, mixer
from ...inputs.finetune_settings import Settings
from ..evaluate.accuracy import divergence, logits
from .loss import label_error


class Validation:
    """Measures the student on held-out images; every result is None without them.

    `first` is the loss before any step, `before` the divergence then.
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
            found = logits(model, self._inputs(held, mixed=False))
            self.before = divergence(found, self.plain)
            self.first = self.loss() if settings.mixup else self._loss_of(found, self.mixed, held)

    def divergence(self) -> Divergence | None:
        """The divergence from the teacher, on unmixed images."""
        if self.held is None or self.plain is None:
            return None
        return divergence(logits(self.model, self._inputs(self.held, mixed=False)), self.plain)

    def loss(self) -> float | None:
        """The KL divergence from the teacher's answers, plus the weighted cross-entropy where labels are learned.

        With mixup it is measured on mixtures: on images that resemble the training images, both nets are certain.
        """
        if self.held is None or self.mixed is None:
            return None
        found = logits(self.model, self._inputs(self.held, mixed=bool(self.settings.mixup)))
        return self._loss_of(found, self.mixed, self.held)

    def _loss_of(self, found: Tensor, target: Tensor, held: Images) -> float:
        loss = divergence(found, target).kl
        if self.settings.label_weight:
            loss += self.settings.label_weight * float(label_error(found, self._labels(held)))
        return loss

    def _labels(self, held: Images) -> Tensor:
        """The labels of the images that can be read; found once, since that reads them all."""
        if self.labels is None:
            known = [labels for _, labels in Reading(held, self.settings.batch_size) if labels is not None]
            self.labels = concat_labels(known)
        return self.labels

    def _inputs(self, held: Images, *, mixed: bool) -> Inputs:
        return Inputs(Reading(held, self.settings.batch_size), self.mix if mixed else None)
