"""Two repairs of batch normalisations: statistics moved to where the original has them, or estimated anew.

Correct: each normalisation's mean and scale are set so that its output has the mean and the variance that it has in
the original, layer by layer behind the corrected prefix (for the means: Nagel et al. 2019, arXiv 1906.04721, 4.2).
Reestimate: running statistics from scratch, by torch's own `update_bn`. Good for a net far off; for one that is close
it costs accuracy, for a thousand images know less than training did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ...network.blocks import BlockLayer
from ...network.inference import device_of
from ...network.norms import norm_affine
from ...network.walk import BlockPair, move_mean, outputs
from .nets import Nets, Tick
from .step import Step

# Fewer images give channels at the end of a net, where one image is a few positions, no variance to speak of.
FEWEST = 256
_MOST = 2.0


@dataclass(frozen=True)
class Correct(Step):
    """Options: `variance`, the power of the ratio of standard deviations by which each channel is scaled."""

    name: ClassVar[str] = "correct"
    variance: Annotated[float, Field(ge=0, le=1)] = 0.5

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        for pair in nets.pairs(begin, tick):
            for layer in pair.block.layers:
                if layer.norm is not None:
                    self._correct(pair, layer, layer.norm)
        return {} if any(layer.norm for block in nets.blocks for layer in block.layers) else {"": "KD124"}

    def _correct(self, pair: BlockPair, layer: BlockLayer, name: str) -> None:
        norm = cast("nn.BatchNorm2d", pair.converted.get_submodule(name))
        (mean0, variance0), (mean, variance) = (_spread(values) for values in outputs(pair, layer))
        deviation = norm_affine(norm)[0].abs() * variance.sqrt()
        deviation0 = norm_affine(pair.original.get_submodule(name))[0].abs() * variance0.sqrt()
        ratio = (deviation0 / deviation.clamp_min(1e-12)).clamp(1 / _MOST, _MOST) ** self.variance
        if norm.weight is not None:
            with torch.no_grad():
                norm.weight.mul_(ratio.to(norm.weight))
        move_mean(pair, name, mean, mean0)


@dataclass(frozen=True)
class Reestimate(Step):
    """No options."""

    name: ClassVar[str] = "reestimate"

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        if not any(isinstance(module, _BatchNorm) for module in nets.converted.modules()):
            return {"": "KD124"}
        if sum(map(len, nets.batches)) < FEWEST:
            return {"": "KD126"}
        update_bn(nets.batches, nets.converted, device_of(nets.converted))
        nets.converted.eval()
        tick(1, 1)
        return {}


def _spread(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance a channel of outputs (batch, channels, positions), float64."""
    count = sum(batch.numel() // batch.shape[1] for batch in batches)
    mean = torch.stack([batch.sum((0, 2), dtype=torch.float64) for batch in batches]).sum(0) / count
    square = torch.stack([batch.double().square().sum((0, 2)) for batch in batches]).sum(0) / count
    return mean, (square - mean.square()).clamp_min(0)
