"""Two repairs of batch normalizations: match their outputs to the original's, or re-estimate their statistics.

Correct sets the mean and the scale of each normalization so that its output has the mean and the variance that it has
in the original, layer by layer behind the corrected prefix (for the means: Nagel et al. 2019, arXiv 1906.04721, 4.2).
Reestimate computes running statistics from scratch with torch's `update_bn`. It helps a net that is far from the
original and costs accuracy in one that is close: a thousand images give worse estimates than training did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ...network.batch_norm import norm_affine
from ...network.inference import device_of
from ...network.walk import Stop, move_mean
from .net_pair import BlockProgress, NetPair
from .step import Step

# The fewest images: at the end of a net an image has few positions, too few for an estimate of the variance.
FEWEST = 256
# The largest factor on a scale, before the power.
_MOST = 2.0


@dataclass(frozen=True)
class Correct(Step):
    """Match mean and variance behind every batch normalization.

    Attributes:
        variance: Each channel is scaled by the ratio of the standard deviations to this power.
    """

    name: ClassVar[str] = "correct"
    variance: Annotated[float, Field(ge=0, le=1)] = 0.5

    def run(self, nets: NetPair, begin: int, progress: BlockProgress) -> dict[str, str]:
        for stop in nets.walk(begin, progress):
            if stop.layer.norm is not None:
                self._correct(stop, stop.layer.norm)
        return {} if any(layer.norm for layer in nets.run_layers) else {"": "KD124"}

    def _correct(self, stop: Stop, name: str) -> None:
        norm = cast("nn.BatchNorm2d", stop.converted.get_submodule(name))
        (mean0, variance0), (mean, variance) = _spreads(stop.outputs())
        deviation = norm_affine(norm)[0].abs() * variance.sqrt()
        deviation0 = norm_affine(stop.original.get_submodule(name))[0].abs() * variance0.sqrt()
        ratio = (deviation0 / deviation.clamp_min(1e-12)).clamp(1 / _MOST, _MOST) ** self.variance
        if norm.weight is not None:
            with torch.no_grad():
                norm.weight.mul_(ratio.to(norm.weight))
        move_mean(stop, name, mean, mean0)


@dataclass(frozen=True)
class Reestimate(Step):
    """Re-estimate the running statistics of every batch normalization. No options."""

    name: ClassVar[str] = "reestimate"

    def run(self, nets: NetPair, begin: int, progress: BlockProgress) -> dict[str, str]:
        if not any(isinstance(module, _BatchNorm) for module in nets.converted.modules()):
            return {"": "KD124"}
        if sum(map(len, nets.batches)) < FEWEST:
            return {"": "KD126"}
        update_bn(nets.batches, nets.converted, device_of(nets.converted))
        nets.converted.eval()
        progress(1, 1)
        return {}


def _spreads(batches: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance per channel of both nets' outputs (batch, channels, positions), float64."""
    first = square = torch.zeros(())
    count = 0
    for pair in batches:
        count += pair[0].numel() // pair[0].shape[1]
        first = first + torch.stack([y.sum((0, 2), dtype=torch.float64) for y in pair])
        square = square + torch.stack([y.double().square().sum((0, 2)) for y in pair])
    mean, second = first / count, square / count
    return list(zip(mean, (second - mean.square()).clamp_min(0), strict=True))
