"""The optimizer and its schedule, by timm. The learning rate of a tensor is proportional to its size.

The tensors of a layer differ in size by two orders of magnitude, and only their product matters. A step of Adam is as
large as the rate, so the rate of each tensor is relative to its root mean square at the start. The largest rate at
which a net trains still depends on its depth and width by orders of magnitude; it is estimated from the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from ...core.errors import RecipeError
from ...inputs.finetune_settings import Settings
from ...network.derive import derived_layers
from .codes import Codes

# A tensor that starts at zero (a gate, the deviation of a scale from one) has no size. Its rate is relative to this.
NO_SIZE, SIZE_OF_ZERO = 1e-2, 0.1
# The share of the loss that the first step is expected to remove, and the largest rate, also used for a zero gradient.
CARE, LARGEST = 0.6, 1e-2
CODES = 1e-2  # the peak rate of the numbers behind codes, in units of an integer
WARMUP = 0.1  # share of the schedule
RESOLUTION = 10_000  # ticks of the schedule


def free(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fitting_rate(parameters: Iterable[nn.Parameter], loss: Tensor) -> float:
    """The relative rate at which the first step of Adam removes the share CARE of the loss, to first order.

    That step is along the signs of the gradient, so this is Polyak's step size in the norm of Adam.
    """
    parameters = list(parameters)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    slope = sum(_scale(parameter) * float(g.abs().sum()) for parameter, g in pairs if g is not None)
    rate = CARE * float(loss.detach()) / slope if slope else 0.0
    return rate if 0 < rate < LARGEST else LARGEST


def create_optimizer(
    model: nn.Module, parameters: Iterable[nn.Parameter], settings: Settings, rate: float, codes: Codes | None = None
) -> Any:
    """An optimizer with one group per parameter, each with its peak rate.

    Args:
        model: The net, whose shared tensors and adapters may have different rates.
        parameters: The parameters to train.
        settings: The optimizer and the rates.
        rate: The relative rate if the settings have none.
        codes: Parameters whose rate is relative to an integer.

    Raises:
        RecipeError: KD208 if timm has no optimizer of this name.
    """
    if settings.opt not in list_optimizers():
        raise RecipeError("KD208", f"opt: timm has no optimizer {settings.opt!r}; adamw, lion, sgd, lamb and others")
    derived = derived_layers(model).values()
    adapters = {id(tensor) for weight in derived for tensor in weight.adapter.values()}
    shared = {id(tensor) for weight in derived for tensor in weight.shared.values()}
    peak = rate if settings.lr is None else settings.lr
    peak_of_rest = peak if settings.shared_lr is None else settings.shared_lr
    groups = []
    for parameter in parameters:
        integer = None if codes is None else codes.step_of(parameter)
        if integer is not None:
            groups.append({"params": [parameter], "lr": (settings.shared_lr or CODES) * integer})
            continue
        own = id(parameter) in adapters or (id(parameter) not in shared and parameter.ndim < 2)
        groups.append({"params": [parameter], "lr": (peak if own else peak_of_rest) * _scale(parameter)})
    return create_optimizer_v2(groups, opt=settings.opt, lr=peak, weight_decay=0.0)


class Schedule:
    """A cosine schedule with warm-up, as a function of the share of the fine-tune that is done."""

    def __init__(self, optimizer: Any) -> None:
        warmup = round(WARMUP * RESOLUTION)
        cosine: dict[str, Any] = {"warmup_t": warmup, "warmup_prefix": True, "t_in_epochs": False}
        self.optimizer = optimizer
        self.schedule: Any = CosineLRScheduler(optimizer, t_initial=RESOLUTION - warmup, **cosine)

    def set(self, done: float, factor: float) -> None:
        """Set the rates for the share `done`, in [0, 1), of the schedule, all multiplied by `factor`."""
        self.schedule.step_update(done * RESOLUTION)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor


def _scale(parameter: Tensor) -> float:
    size = float(parameter.detach().float().square().mean().sqrt())
    return size if size > NO_SIZE else SIZE_OF_ZERO
