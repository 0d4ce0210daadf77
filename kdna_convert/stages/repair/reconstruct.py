"""Block reconstruction: what one block has of its own fitted to the original block's outputs by a few optimiser steps.

min |block(z) - block0(z0)|^2 over the adapters, the normalisations' affine parameters and the biases of the block, z
from the converted prefix and z0 from the original, both kept in memory (BRECQ: Li et al. 2021, arXiv 2102.05426,
section 3.2, there for rounding). Statistics of normalisations stay as they are. A block that does not come out better
on images kept apart from the steps is put back.
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
from .nets import Nets, Tick
from .step import Step

# The share of the images that a block is judged by and not fitted to.
JUDGES = 0.2


@dataclass(frozen=True)
class Reconstruct(Step):
    """Options: `steps` of Adam a block, each on `batch` images, at `rate` times the mean size of a tensor's numbers."""

    name: ClassVar[str] = "reconstruct"
    steps: Annotated[int, Field(ge=1)] = 100
    batch: Annotated[int, Field(ge=1)] = 64
    rate: Annotated[float, Field(gt=0)] = 3e-3
    seed: int = 0

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        derived = derived_layers(nets.converted)
        left_out = {name: code for name, code in nets.unreachable.items() if name in derived}
        for pair in nets.pairs(begin, tick):
            held = [layer.name for layer in pair.block.layers if layer.name in derived]
            if not held:
                continue
            if pair.target_outputs is None:
                left_out |= dict.fromkeys(held, "KD122")
                continue
            self._fit(pair)
        return left_out

    def _fit(self, pair: BlockPair) -> None:
        block = pair.converted_block
        inputs, wanted = torch.cat(pair.inputs), torch.cat(pair.target_outputs or [])
        judged = max(1, round(JUDGES * len(inputs)))
        free = _own(block)
        before = [tensor.detach().clone() for tensor in free]
        error = _error(block, inputs[:judged], wanted[:judged])
        asked = [(parameter, parameter.requires_grad) for parameter in block.parameters()]
        try:
            self._descend(block, free, inputs[judged:], wanted[judged:])
        finally:
            for parameter, was in asked:
                parameter.requires_grad_(was)
        if not _error(block, inputs[:judged], wanted[:judged]) < error:
            with torch.no_grad():
                for tensor, old in zip(free, before, strict=True):
                    tensor.copy_(old)

    def _descend(self, block: nn.Module, free: list[nn.Parameter], inputs: Tensor, wanted: Tensor) -> None:
        if not len(inputs) or not free:
            return
        for parameter in block.parameters():
            parameter.requires_grad_(False)
        for parameter in free:
            parameter.requires_grad_(True)
        groups = [{"params": [p], "lr": self.rate * float(p.detach().abs().mean().clamp_min(1e-6))} for p in free]
        optimiser = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        generator = torch.Generator().manual_seed(self.seed)
        energy = wanted.square().mean().clamp_min(1e-30)
        for _ in range(self.steps):
            chosen = torch.randint(len(inputs), (min(self.batch, len(inputs)),), generator=generator)
            loss = (block(inputs[chosen]) - wanted[chosen]).square().mean() / energy
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _own(block: nn.Module) -> list[nn.Parameter]:
    """The parameters that a block need not share: adapters, and whatever has one number a channel."""
    derived = derived_layers(block).values()
    shared = {id(tensor) for weight in derived for tensor in weight.shared.values()}
    adapters = {id(t) for weight in derived for t in weight.adapter.values() if t.is_floating_point()}
    return [p for p in block.parameters() if id(p) in adapters or (p.ndim == 1 and id(p) not in shared)]


def _error(block: nn.Module, inputs: Tensor, wanted: Tensor) -> float:
    with evaluating(block):
        pairs = zip(inputs.split(100), wanted.split(100), strict=True)
        return float(sum((block(x.clone()) - y).square().sum() for x, y in pairs))
