"""An image for every image: super-resolution, denoising, colorization, at any scale factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import DataError
from ..core.measurements import Divergence
from .logits import described_labels
from .raw import Raw
from .structure import wrong_outputs
from .task import Outputs, Statistics

# The least mean squared error that PSNR tells from zero: 100 dB.
_LEAST = 1e-10
# The least side of an image for SSIM with its usual window: a Gaussian of standard deviation 1.5, 11 pixels wide.
WINDOW = 11


@dataclass(frozen=True)
class Image(Raw):
    """Images (images, channels, height, width) with values in 0..1. Labels: images of the same shape."""

    name: ClassVar[str] = "image"
    points: ClassVar[tuple[str | None, str | None]] = ("psnr", None)

    def outputs(self, returned: object, images: int) -> Outputs:
        own = super().outputs(returned, images)[:1]
        if own[0].ndim != 4:
            raise wrong_outputs(self.name, "an output (images, channels, height, width)", returned)
        return own

    def compare(self, outputs: Outputs, targets: Outputs) -> Statistics:
        return super().compare(outputs, targets) | _similarity(outputs[0], targets[0])

    def divergence(self, statistics: Statistics) -> Divergence:
        own = super().divergence(statistics)
        return Divergence(None, None, own.logit_error, own.images, dict(self.scores(statistics)), self.name)

    def score(self, outputs: Outputs, labels: Tensor) -> Statistics:
        return _similarity(outputs[0], self._targets(outputs[0], labels))

    def label_loss(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The mean absolute error."""
        return (outputs[0] - self._targets(outputs[0], labels)).abs().mean()

    def scores(self, statistics: Statistics) -> Mapping[str, float]:
        return {name: float(statistics[name].mean()) for name in ("psnr", "ssim") if name in statistics}

    def _targets(self, images: Tensor, labels: Tensor) -> Tensor:
        if labels.shape != images.shape or not labels.is_floating_point():
            needed = f"target images of shape {tuple(images.shape)}"
            raise DataError("KD402", f"image needs {needed}; got {described_labels(labels)}")
        return labels.to(images)


def _similarity(own: Tensor, target: Tensor) -> Statistics:
    """PSNR in dB and SSIM (Wang et al. 2004) of every image, both clamped to 0..1."""
    own, target = (each.detach().float().clamp(0, 1) for each in (own, target))
    psnr = -10 * torch.log10((own - target).double().square().flatten(1).mean(1).clamp(min=_LEAST))
    statistics = {"psnr": psnr.cpu()}
    if min(own.shape[2:]) >= WINDOW:
        from torchmetrics.functional.image import structural_similarity_index_measure

        ssim = structural_similarity_index_measure(own, target, data_range=1.0, reduction="none")
        statistics["ssim"] = torch.as_tensor(ssim).double().reshape(len(own)).cpu()
    return statistics
