"""A softmax or a gate that starts nearly flat and is sharpened while the net is trained: T falls from 30 to 1.

Source: Chen et al., Dynamic Convolution, 2020, and ODConv after it: a flat start lets every expert learn before the
attention has its favourites. T is divided into what a head of zeros says, so that no T changes the net at its start. It
is a buffer, saved with the router: a net that was trained at one T is wrong at another.
"""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor, nn

from ..core.errors import RecipeError
from .router import Router

START = 30.0
COOLED = 1 / 3  # the share of the training after which T is 1


class Tempered(Router):
    """A router whose attention is divided by `temperature`, a tensor of no axes."""

    temperature: Tensor

    def __init__(self, spatial: int, temperature: float) -> None:
        super().__init__(spatial)
        self.register_buffer("temperature", torch.tensor(float(temperature)))


class Annealing:
    """The temperatures of a model's routers as a function of how much of its training is done.

    Each falls from what it is now, so that routers that were annealed before stay at 1 and a run that is resumed from
    the same start goes through the same temperatures.
    """

    def __init__(self, model: nn.Module) -> None:
        named = model.named_modules()
        self.routers = {name: module for name, module in named if isinstance(module, Tempered)}
        self.starts = {name: float(router.temperature) for name, router in self.routers.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The temperatures by their names in the state dict."""
        return {f"{name}.temperature": router.temperature for name, router in self.routers.items()}

    def set(self, done: float) -> None:
        """Set every temperature, in place, for where the share `done`, in [0, 1], of the training is done."""
        for name, router in self.routers.items():
            router.temperature.fill_(cooled(self.starts[name], done))


def cooled(start: float, done: float) -> float:
    """T after the share `done`: linear from `start` to 1 over the first third, then 1."""
    return 1 + (start - 1) * max(0.0, 1 - done / COOLED)


def anneal(model: nn.Module, done: float, start: float = START) -> None:
    """For a training loop of one's own: set every router's temperature, in place, to what it is when the share `done`,
    in [0, 1], of a training that began at `start` is done."""
    for module in model.modules():
        if isinstance(module, Tempered):
            module.temperature.fill_(cooled(start, done))


def require_temperature(name: str, temperature: float) -> None:
    """Raises RecipeError KD203."""
    if not (isfinite(temperature) and temperature >= 1):
        raise RecipeError("KD203", f"routing {name}: temperature must be at least 1, got {temperature:g}")
