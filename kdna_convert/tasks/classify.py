"""One class for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.measurements import Divergence
from .logits import distillation, first_of, kl_rows, require_labels
from .relative_error import errors, relative_error
from .sampled_labels import draw
from .structure import tensors_in, wrong_outputs
from .task import Head, Outputs, Statistics

# Temperature of the softmax that labels are drawn from. A trained net is nearly certain of its images: labels drawn at
# temperature 1 give almost no gradient.
_TEMPERATURE = 2.0


@dataclass(frozen=True)
class Classify:
    """One class for every image: logits (images, classes)."""

    name: ClassVar[str] = "classify"
    pick: Callable[[Any], Any] | None = None
    points: ClassVar[tuple[str | None, str | None]] = ("top1", "agreement")

    def taps(self, net: nn.Module) -> tuple[str, ...]:
        return ()

    def tapped(self, net: nn.Module, values: Mapping[str, object]) -> Sequence[Tensor]:
        return tensors_in(values)

    def apart(self, net: nn.Module) -> tuple[str, ...]:
        return ()

    def heads(self, net: nn.Module) -> tuple[Head, ...]:
        return ()

    def outputs(self, returned: object, images: int) -> Outputs:
        z = first_of(returned, images)
        z = z.flatten(1) if z.ndim > 2 and z[0].numel() == z.shape[1] else z
        if z.ndim != 2 or z.shape[1] < 2:
            raise wrong_outputs(self.name, "logits (images, classes) of two or more classes", returned)
        return (z,)

    def loss(self, outputs: Outputs, targets: Outputs, temperature: float) -> Tensor:
        return distillation(outputs[0], targets[0], temperature)

    def sampled(self, outputs: Outputs, generator: torch.Generator) -> Tensor | None:
        """The cross-entropy with a label for each row of logits, drawn from the net's own softened softmax."""
        if not outputs[0].requires_grad:
            return None
        rows_nc = outputs[0].float().movedim(1, -1).flatten(0, -2) / _TEMPERATURE
        labels_n, weights_n = draw(rows_nc.detach().softmax(1).cpu(), generator)
        loss_n = F.cross_entropy(rows_nc, labels_n.to(rows_nc.device), reduction="none")
        return (weights_n.to(rows_nc.device) * loss_n).sum()

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The cross-entropy."""
        require_labels(labels, (len(outputs[0]),), outputs[0].shape[1])
        return F.cross_entropy(outputs[0], labels)

    def agreement(self, outputs: Outputs, targets: Outputs) -> Tensor:
        return (outputs[0].detach().argmax(1) == targets[0].argmax(1)).float().mean()

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        own = errors(outputs, targets)
        z, z0 = outputs[0].double(), targets[0].double()
        same = (z.argmax(1) == z0.argmax(1)).double().reshape(len(z), -1).mean(1)
        return own | {"same": same.cpu(), "kl": kl_rows(z, z0).cpu()}

    def divergence(self, statistics: Statistics) -> Divergence:
        kl = float(statistics["kl"].mean().clamp(min=0))
        return Divergence(
            float(statistics["same"].mean()), kl, relative_error(statistics), len(statistics["kl"]), task=self.name
        )

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        """Whether the label is the best class, and one of the best five (of fewer than five classes: 1)."""
        z, classes = outputs[0], outputs[0].shape[1]
        require_labels(labels, (len(z),), classes)
        ranked = z.topk(min(5, classes), dim=1).indices == labels.to(z.device)[:, None]
        return {"top1": ranked[:, 0].double().cpu(), "top5": ranked.any(dim=1).double().cpu()}

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return {name: float(rows.mean()) for name, rows in statistics.items()}
