"""Block reconstruction: fit the parameters of one block that are its own to the original block's outputs.

min |block(z) - block0(z0)|^2 over the adapters, the affine parameters of normalizations and the biases of the block,
with z from the converted prefix and z0 from the original, both kept in memory (BRECQ: Li et al. 2021, arXiv
2102.05426, section 3.2, there for rounding). Statistics of normalizations do not change. A block is restored if its
error on images that were held out from the fit does not fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...network.derive import derived_layers
from ...network.inference import evaluating
from ...network.walk import Stop
from .net_pair import BlockProgress, NetPair
from .step import Step

Pair = tuple[Tensor, Tensor]  # a block's input and target of one image

# The most multiply-adds of the forward passes that train a block, and the smallest batch that it is cut to. 100 steps
# of 64 images take 3e10 in a block of a ResNet-56 at 32 pixels, and 1.5e12 in one of a ResNet-18 at 224 pixels.
WORK, FEWEST = 6e10, 8
# A block is left out if this bound leaves it less than this share of its images: so few steps improved no block of a
# ResNet-18 at 30 or at 50 % of the parameters.
LEAST = 0.1
# The share of the images that is held out from the fit and decides whether it is kept.
JUDGES = 0.2


@dataclass(frozen=True)
class Reconstruct(Step):
    """Fit every block by a few steps of Adam.

    Attributes:
        steps: Steps per block. A block that is too costly for this (WORK) gets smaller batches, then fewer steps.
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
        macs = {layer.name: layer.macs for layer in nets.layers}
        affordable: dict[str, Reconstruct] = {}  # by block
        for block in nets.blocks:
            converted = [layer.name for layer in block.layers if layer.name in derived]
            within = self._affordable(sum(macs[layer.name] for layer in block.layers))
            if not block.whole:
                skipped |= dict.fromkeys(converted, "KD122")
            elif within is None:
                skipped |= dict.fromkeys(converted, "KD146")
            elif converted:
                affordable[block.name] = within
        if affordable:
            for block, stop in nets.walk_blocks(begin, progress):
                if block.name in affordable:
                    affordable[block.name]._fit(stop)
        return skipped

    def _affordable(self, macs: int) -> Reconstruct | None:
        """The same in a block of so many multiply-adds per image: as many images as the bound allows, or None."""
        images = WORK / max(1, macs)
        return self._within(images) if images > LEAST * self.steps * self.batch else None

    def _within(self, images: float) -> Reconstruct:
        """The same, with so few images in all steps together."""
        batch = min(self.batch, max(FEWEST, int(images / self.steps)))
        return replace(self, batch=batch, steps=min(self.steps, max(1, int(images / batch))))

    def _fit(self, stop: Stop) -> None:
        block = stop.module
        pairs = [pair for x, y in zip(stop.inputs, stop.targets, strict=True) for pair in zip(x, y, strict=True)]
        judged = max(1, round(JUDGES * len(pairs)))
        free = _own(block)
        before = [tensor.detach().clone() for tensor in free]
        error = _error(block, pairs[:judged])
        trained = [(parameter, parameter.requires_grad) for parameter in block.parameters()]
        try:
            self._descend(block, free, pairs[judged:])
        finally:
            for parameter, was in trained:
                parameter.requires_grad_(was)
        if not _error(block, pairs[:judged]) < error:
            with torch.no_grad():
                for tensor, old in zip(free, before, strict=True):
                    tensor.copy_(old)

    def _descend(self, block: nn.Module, free: list[nn.Parameter], pairs: Sequence[Pair]) -> None:
        if not pairs or not free:
            return
        for parameter in block.parameters():
            parameter.requires_grad_(False)
        for parameter in free:
            parameter.requires_grad_(True)
        groups = [{"params": [p], "lr": self.rate * float(p.detach().abs().mean().clamp_min(1e-6))} for p in free]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        generator = torch.Generator().manual_seed(self.seed)
        energy = torch.stack([y.square().mean() for _, y in pairs]).mean().clamp_min(1e-30)
        for _ in range(self.steps):
            chosen = torch.randint(len(pairs), (min(self.batch, len(pairs)),), generator=generator)
            x, y = _stacked([pairs[place] for place in chosen])
            loss = (block(x) - y).square().mean() / energy
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


def _error(block: nn.Module, pairs: Sequence[Pair]) -> float:
    with evaluating(block):
        batches = (_stacked(pairs[start : start + 100]) for start in range(0, len(pairs), 100))
        return float(sum((block(x) - y).square().sum() for x, y in batches))


def _stacked(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Copies of these images' inputs and targets as one batch: a block may change its input in place."""
    x, y = zip(*pairs, strict=True)
    return torch.stack(x), torch.stack(y)
