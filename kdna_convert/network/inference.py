"""Running a net without training it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..core.modes import eval_mode
from ..core.specs import DataConfig
from ..inputs.models import example_input
from .derive import cached


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode, no gradients, every derived weight computed once; on exit each module has its former mode."""
    with eval_mode(model), cached(model), torch.no_grad():
        yield model


def own_example(model: nn.Module, config: DataConfig) -> Tensor:
    """An example input in the dtype of the model's numbers."""
    dtypes = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return example_input(config).to(next(dtypes, torch.float32))


def is_packed(config: DataConfig) -> bool:
    """Whether this may be the size of several inputs, which are recorded as one flat tensor."""
    return len(config.input_size) == 2 and config.input_size[0] == 1 and config.sample_rate is None


def is_inside(name: str, modules: Iterable[str]) -> bool:
    """Whether a module of this name is one of these, or a part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lives."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
