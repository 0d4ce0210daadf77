"""The optimizer and its schedule, timm's: every free tensor steps in proportion to its own size.

A layer's tensors differ in size by two orders of magnitude, and only their product means something; so Adam's step,
which has the size of its rate, is measured by each tensor's root mean square as it was at the start. How large a step
a net bears still depends on its depth and width, by orders of magnitude, and is asked of its gradient.
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

# A tensor that starts at zero (a gate, a scale's deviation from one) has no size for its rate to be relative to.
NO_SIZE, SIZE_OF_ZERO = 1e-2, 0.1
# Of the loss, what a first step may be expected to take away; and the rate at most, where the gradient says nothing.
CARE, LARGEST = 0.6, 1e-2
CODES = 1e-2  # of an integer, the peak by which numbers behind codes move in a step
WARMUP = 0.1  # of the whole
RESOLUTION = 10_000  # ticks of the schedule


def free(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may change, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fitting_rate(parameters: Iterable[nn.Parameter], loss: Tensor) -> float:
    """The relative rate at which a step of that size along the signs of the gradient, which is Adam's first, would to
    first order take away the share CARE of the loss: Polyak's step in the norm of Adam.
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
    """One group a tensor of these, with its peak rate: the settings', or `rate` where they name none; `codes` are moved
    by so much of an integer.

    Raises RecipeError KD208 for an optimizer that timm has not.
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
    """A cosine with warm-up over the share of the work that is done; `factor` lowers the whole of it."""

    def __init__(self, optimizer: Any) -> None:
        warmup = round(WARMUP * RESOLUTION)
        cosine: dict[str, Any] = {"warmup_t": warmup, "warmup_prefix": True, "t_in_epochs": False}
        self.optimizer = optimizer
        self.schedule: Any = CosineLRScheduler(optimizer, t_initial=RESOLUTION - warmup, **cosine)

    def set(self, done: float, factor: float) -> None:
        """Set every rate for the step that begins when the share `done`, in [0, 1), is done."""
        self.schedule.step_update(done * RESOLUTION)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor


def _scale(parameter: Tensor) -> float:
    size = float(parameter.detach().float().square().mean().sqrt())
    return size if size > NO_SIZE else SIZE_OF_ZERO
