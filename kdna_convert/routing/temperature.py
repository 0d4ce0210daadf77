"""The temperature T of an attention: a nearly flat softmax or gate that becomes sharper during the training.

T falls from 30 to 1 (Chen et al., Dynamic Convolution, CVPR 2020, arXiv 1912.03458, and ODConv after it): a flat start
lets every expert learn before the attention prefers some. The output of a head of zeros is divided by T, so that no T
changes the net at its start. T is a buffer and is saved with the router, since a net that was trained at one T is wrong
at another.
"""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor, nn

from ..core.errors import RecipeError
from .router import Router

START = 30.0
COOLED = 1 / 3  # the share of the training after which T is 1


class TemperedRouter(Router):
    """A router whose attention is divided by `temperature`, a tensor without axes."""

    temperature: Tensor

    def __init__(self, spatial: int, temperature: float) -> None:
        super().__init__(spatial)
        self.register_buffer("temperature", torch.tensor(float(temperature)))


class Annealing:
    """The temperatures of a model's routers as a function of the progress of the training.

    Each falls from its present value. So routers that were annealed before stay at 1, and a run that is resumed from
    the same start has the same temperatures.
    """

    def __init__(self, model: nn.Module) -> None:
        named = model.named_modules()
        self.routers = {name: module for name, module in named if isinstance(module, TemperedRouter)}
        self.starts = {name: float(router.temperature) for name, router in self.routers.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The temperatures by their names in the state dict."""
        return {f"{name}.temperature": router.temperature for name, router in self.routers.items()}

    def set(self, done: float) -> None:
        """Set every temperature, in place, for the share `done`, in [0, 1], of the training."""
        for name, router in self.routers.items():
            router.temperature.fill_(temperature_at(self.starts[name], done))


def temperature_at(start: float, done: float) -> float:
    """T after the share `done` of the training: linear from `start` to 1 over the first third, then 1."""
    return 1 + (start - 1) * max(0.0, 1 - done / COOLED)


def anneal(model: nn.Module, done: float, start: float = START) -> None:
    """Set every router's temperature, in place, for use in your own training loop.

    Args:
        model: The routed net.
        done: The share of the training that is done, in [0, 1].
        start: The temperature at the start of the training.
    """
    for module in model.modules():
        if isinstance(module, TemperedRouter):
            module.temperature.fill_(temperature_at(start, done))


def require_temperature(name: str, temperature: float) -> None:
    """Raises RecipeError KD203 for a temperature below 1."""
    if not (isfinite(temperature) and temperature >= 1):
        raise RecipeError("KD203", f"routing {name}: temperature must be at least 1, got {temperature:g}")
