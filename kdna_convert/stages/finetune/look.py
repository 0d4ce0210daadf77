"""What a fine-tune sees of images that were held back: the loss by which the best step is told, and the divergence."""

from __future__ import annotations

from torch import Tensor, nn

from ...core.specs import Divergence
from ...inputs.data import Images, Inputs, Reading, concat_labels, mixer
from ..evaluate.accuracy import divergence, logits
from .loss import label_error
from .settings import Settings


class Look:
    """Called, the loss on held-back images, None without them; `first` is what it was before any step.

    That is the KL from the teacher's answers, on mixtures of the images where the fine-tune mixes: a net that knows its
    training images by heart knows those held back of them too, but not their mixtures. With `label_weight`, so many
    times the labels' cross-entropy is added, as in training. `before` is the divergence then, of images as they are.
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
            self.first = self() if settings.mixup else self._loss(found, self.mixed, held)

    def divergence(self) -> Divergence | None:
        """From the teacher, on the images as they are."""
        if self.held is None or self.plain is None:
            return None
        return divergence(logits(self.model, self._inputs(self.held, mixed=False)), self.plain)

    def __call__(self) -> float | None:
        if self.held is None or self.mixed is None:
            return None
        found = logits(self.model, self._inputs(self.held, mixed=bool(self.settings.mixup)))
        return self._loss(found, self.mixed, self.held)

    def _loss(self, found: Tensor, target: Tensor, held: Images) -> float:
        loss = divergence(found, target).kl
        if self.settings.label_weight:
            loss += self.settings.label_weight * float(label_error(found, self._labels(held)))
        return loss

    def _labels(self, held: Images) -> Tensor:
        """Of the images that can be read; found once, for it takes reading them all."""
        if self.labels is None:
            known = [labels for _, labels in Reading(held, self.settings.batch_size) if labels is not None]
            self.labels = concat_labels(known)
        return self.labels

    def _inputs(self, held: Images, *, mixed: bool) -> Inputs:
        return Inputs(Reading(held, self.settings.batch_size), self.mix if mixed else None)
