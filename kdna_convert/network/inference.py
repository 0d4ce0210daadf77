"""Running a net without training it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..core.modes import eval_mode
from .derive import cached


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode, no gradients, every derived weight computed once; on exit each module has its former mode."""
    with eval_mode(model), cached(model), torch.no_grad():
        yield model


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lives."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
