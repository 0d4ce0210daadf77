"""The optimiser and its schedule, timm's: every free tensor steps in proportion to its own size.

A layer's tensors differ in size by two orders of magnitude, and only their product means something; so Adam's step,
which has the size of its rate, is measured by each tensor's root mean square as it was at the start.
"""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from ..derive import derived_layers
from ..errors import RecipeError
from .settings import Settings

# A tensor that starts at zero (a gate, a scale's deviation from one) has no size for its rate to be relative to.
NO_SIZE, SIZE_OF_ZERO = 1e-2, 0.1
WARMUP = 0.1  # of the whole
RESOLUTION = 10_000  # ticks of the schedule


def free(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may change, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def create_optimizer(model: nn.Module, settings: Settings) -> Any:
    """One group a free tensor, with its peak rate. Raises RecipeError KD208 for an optimiser that timm has not."""
    if settings.opt not in list_optimizers():
        raise RecipeError("KD208", f"opt: timm has no optimiser {settings.opt!r}; adamw, lion, sgd, lamb and others")
    derived = derived_layers(model).values()
    adapters = {id(tensor) for weight in derived for tensor in weight.adapter.values()}
    shared = {id(tensor) for weight in derived for tensor in weight.shared.values()}
    groups = []
    for parameter in free(model).values():
        own = id(parameter) in adapters or (id(parameter) not in shared and parameter.ndim < 2)
        groups.append({"params": [parameter], "lr": (settings.lr if own else settings.shared_lr) * _scale(parameter)})
    return create_optimizer_v2(groups, opt=settings.opt, lr=settings.lr, weight_decay=0.0)


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
