"""Alignment: whatever has one number a channel, fitted end to end to the original's answers by a few optimiser steps.

min KL(original || converted) over the affine parameters of normalisations and the biases of layers: half a per cent of
a net, so that a thousand images do not overfit it. No label is read. Kernels, adapters and shared tensors stay, and so
do the statistics of normalisations. What the layer-by-layer steps cannot see, how errors of many layers add up in the
answers, is what this one works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..derive import cached
from ..evaluate import answers, logits
from ..totals import device_of
from .nets import Nets, Tick


@dataclass(frozen=True)
class Align:
    """Options: `steps` of Adam, each on `batch` images, at `rate`; the loss is taken at `temperature`."""

    steps: Annotated[int, Field(ge=1)] = 60
    batch: Annotated[int, Field(ge=1)] = 100
    rate: Annotated[float, Field(gt=0)] = 1e-3
    temperature: Annotated[float, Field(gt=0)] = 2.0
    seed: int = 0

    def run(self, nets: Nets, begin: int, tick: Tick) -> dict[str, str]:
        model = nets.converted
        free = [parameter for parameter in model.parameters() if parameter.ndim == 1 and parameter.is_floating_point()]
        if not free:
            return {"": "KD124"}
        self.descend(model, free, torch.cat(nets.batches), logits(nets.original, nets.batches), tick)
        return {}

    def descend(
        self, model: nn.Module, free: Sequence[nn.Parameter], inputs: Tensor, wanted: Tensor, tick: Tick
    ) -> None:
        """Fit the parameters `free`, in place, to the answers `wanted` (images, classes, ...) to these inputs."""
        asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        generator = torch.Generator().manual_seed(self.seed)
        try:
            for parameter, _ in asked:
                parameter.requires_grad_(False)
            for parameter in free:
                parameter.requires_grad_(True)
            optimiser = torch.optim.Adam(free, lr=self.rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
            with cached(model):
                for done in range(self.steps):
                    chosen = torch.randperm(len(inputs), generator=generator)[: self.batch]
                    optimiser.zero_grad()
                    self._loss(model, inputs[chosen], wanted[chosen]).backward()
                    optimiser.step()
                    schedule.step()
                    tick(done + 1, self.steps)
        finally:
            for parameter, was in asked:
                parameter.requires_grad_(was)
                parameter.grad = None

    def _loss(self, model: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
        place = device_of(model)
        found = answers(model(inputs.to(place)), len(inputs)).float() / self.temperature
        log_p, log_p0 = F.log_softmax(found, 1), F.log_softmax(wanted.to(place) / self.temperature, 1)
        return (log_p0.exp() * (log_p0 - log_p)).sum(1).mean() * self.temperature**2
