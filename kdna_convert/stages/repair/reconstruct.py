"""Block reconstruction: fit the parameters of one block that are its own to the original block's outputs.

min |block(z) - block0(z0)|^2 over the adapters, the affine parameters of normalizations and the biases of the block,
with z from the converted prefix and z0 from the original, both kept in memory (BRECQ: Li et al. 2021, arXiv
2102.05426, section 3.2, there for rounding). Statistics of normalizations do not change. A block is restored if its
error on images that were held out from the fit does not fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...network.derive import derived_layers
from ...network.inference import evaluating
from ...network.walk import BlockPair
from .net_pair import BlockProgress, NetPair
from .step import Step

# The share of the images that is held out from the fit and decides whether it is kept.
JUDGES = 0.2


@dataclass(frozen=True)
class Reconstruct(Step):
    """Fit every block by a few steps of Adam.

    Attributes:
        steps: Steps per block.
        batch: Images per step.
        rate: The learning rate, relative to the mean magnitude of each tensor.
        seed: Which images each step uses.
    """

    name: ClassVar[str] = "reconstruct"
    steps: Annotated[int, Field(ge=1)] = 100
    batch: Annotated[int, Field(ge=1)] = 64
    rate: Annotated[float, Field(gt=0)] = 3e-3
    seed: int = 0

    def run(self, nets: NetPair, begin: int, progress: BlockProgress) -> dict[str, str]:
        derived = derived_layers(nets.converted)
        skipped = {name: code for name, code in nets.unreachable.items() if name in derived}
        for pair in nets.pairs(begin, progress):
            converted = [layer.name for layer in pair.block.layers if layer.name in derived]
            if not converted:
                continue
            if pair.target_outputs is None:
                skipped |= dict.fromkeys(converted, "KD122")
                continue
            self._fit(pair)
        return skipped

    def _fit(self, pair: BlockPair) -> None:
        block = pair.converted_block
        inputs, target = torch.cat(pair.inputs), torch.cat(pair.target_outputs or [])
        judged = max(1, round(JUDGES * len(inputs)))
        free = _own(block)
        before = [tensor.detach().clone() for tensor in free]
        error = _error(block, inputs[:judged], target[:judged])
        trained = [(parameter, parameter.requires_grad) for parameter in block.parameters()]
        try:
            self._descend(block, free, inputs[judged:], target[judged:])
        finally:
            for parameter, was in trained:
                parameter.requires_grad_(was)
        if not _error(block, inputs[:judged], target[:judged]) < error:
            with torch.no_grad():
                for tensor, old in zip(free, before, strict=True):
                    tensor.copy_(old)

    def _descend(self, block: nn.Module, free: list[nn.Parameter], inputs: Tensor, target: Tensor) -> None:
        if not len(inputs) or not free:
            return
        for parameter in block.parameters():
            parameter.requires_grad_(False)
        for parameter in free:
            parameter.requires_grad_(True)
        groups = [{"params": [p], "lr": self.rate * float(p.detach().abs().mean().clamp_min(1e-6))} for p in free]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        generator = torch.Generator().manual_seed(self.seed)
        energy = target.square().mean().clamp_min(1e-30)
        for _ in range(self.steps):
            chosen = torch.randint(len(inputs), (min(self.batch, len(inputs)),), generator=generator)
            loss = (block(inputs[chosen]) - target[chosen]).square().mean() / energy
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _own(block: nn.Module) -> list[nn.Parameter]:
    """The parameters that only this block uses: adapters, and tensors with one number per channel."""
    derived = derived_layers(block).values()
    shared = {id(tensor) for weight in derived for tensor in weight.shared.values()}
    adapters = {id(t) for weight in derived for t in weight.adapter.values() if t.is_floating_point()}
    return [p for p in block.parameters() if id(p) in adapters or (p.ndim == 1 and id(p) not in shared)]


def _error(block: nn.Module, inputs: Tensor, target: Tensor) -> float:
    with evaluating(block):
        pairs = zip(inputs.split(100), target.split(100), strict=True)
        return float(sum((block(x.clone()) - y).square().sum() for x, y in pairs))
