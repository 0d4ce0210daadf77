"""Fine-tuning a converted net: the original is the teacher, so no image needs a label.

The loss is KL(original || model) at a temperature, scaled by its square (Hinton et al. 2015, arXiv 1503.02531).
BatchNorm's statistics stay as they are: the net is trained in eval mode, so that a small set of images cannot spoil
them, and so is the teacher, so that both see the same image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from .data import Batch, Data, Images, as_images, batches
from .derive import trainable
from .errors import NumericsError
from .evaluate import answers, divergence, logits
from .specs import Divergence, Progress
from .totals import device_of

# A tensor that starts at zero (a gate, a scale's deviation from one) has no size for its rate to be relative to.
SMALLEST_SCALE = 0.1
WARMUP = 0.05  # of the steps


@dataclass(frozen=True)
class Tuning:
    """What a fine-tune did. `losses` are the epochs' means; `trained` of `params` parameters were free to change.

    `before` and `after` are measured on the held-back images, None without them. If `kept` is False, the fine-tune had
    moved the net further from the original there, and every parameter was put back.
    """

    steps: int
    trained: int
    params: int
    losses: tuple[float, ...]
    before: Divergence | None
    after: Divergence | None
    kept: bool


def finetune(
    model: nn.Module,
    original: nn.Module,
    images: Data,
    *,
    heldout: Data | None = None,
    train: Literal["adapters", "shared", "all"] = "adapters",
    epochs: int = 5,
    batch_size: int = 128,
    lr: float = 1e-3,
    temperature: float = 2.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Train `model` towards the answers of `original`, in place; `train` says what may change (derive.trainable).

    `lr` is the peak of a cosine with warm-up, relative to each tensor's root mean square. Images are read in another
    order each epoch, by `seed`. With `device` both nets are moved there. Raises NumericsError KD703, every parameter
    put back, when the loss does not stay finite; ModelError KD308 when a net does not return logits.
    """
    source, held = as_images(images), None if heldout is None else as_images(heldout)
    for net in () if device is None else (model, original):
        net.to(device)
    target = None if held is None else logits(original, batches(held, batch_size))

    def measure() -> Divergence | None:
        if held is None or target is None:
            return None
        return divergence(logits(model, batches(held, batch_size)), target)

    with _training(model, original):
        trained, params = trainable(model, train)
        start = [(parameter, parameter.detach().clone()) for parameter in _free(model)]
        before = measure()
        rate = _Rate(model, lr, epochs * math.ceil(len(source) / batch_size))
        try:
            losses = _train(model, original, _drawn(source, epochs, batch_size, seed), rate, temperature, progress)
        except NumericsError:
            _restore(start)
            raise
        after = measure()
        kept = before is None or after is None or after.kl <= before.kl
        if not kept:
            _restore(start)
    return Tuning(rate.step, trained, params, losses, before, after, kept)


def distillation(output: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || output) at temperature T, both (B, classes, ...): the mean over all but the classes."""
    log_p = F.log_softmax(output / temperature, dim=1)
    log_p0 = F.log_softmax(target / temperature, dim=1)
    return (log_p0.exp() * (log_p0 - log_p)).sum(dim=1).mean() * temperature**2


class _Rate:
    """The optimiser and its schedule, as one: every free tensor steps in proportion to its own size."""

    def __init__(self, model: nn.Module, lr: float, steps: int) -> None:
        groups = [{"params": [parameter], "lr": lr * _scale(parameter)} for parameter in _free(model)]
        self.optimizer: Any = create_optimizer_v2(groups, opt="adamw", lr=lr, weight_decay=0.0)
        warmup = round(WARMUP * steps)
        cosine: dict[str, Any] = {
            "t_initial": steps - warmup + 1,
            "warmup_t": warmup,
            "warmup_prefix": True,
            "t_in_epochs": False,
        }
        self.schedule: Any = CosineLRScheduler(self.optimizer, **cosine)
        self.step, self.steps = 0, steps

    def descend(self, loss: Tensor) -> None:
        self.schedule.step_update(self.step + 1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1


def _train(
    model: nn.Module,
    original: nn.Module,
    epochs: Iterable[Iterable[Batch]],
    rate: _Rate,
    temperature: float,
    progress: Progress | None,
) -> tuple[float, ...]:
    """The mean loss of every epoch."""
    means: list[float] = []
    for epoch in epochs:
        losses: list[float] = []
        for x, _ in epoch:
            if progress:
                progress("fine-tune", rate.step, rate.steps)
            loss = _loss(model, original, x.to(device_of(model)), temperature)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise NumericsError("KD703", f"the loss is {losses[-1]} at step {rate.step + 1}; try a lower lr")
            rate.descend(loss)
        means.append(sum(losses) / len(losses))
    if progress:
        progress("fine-tune", rate.steps, rate.steps)
    return tuple(means)


def _drawn(images: Images, epochs: int, batch_size: int, seed: int) -> Iterator[Iterator[Batch]]:
    """The batches of each epoch, in an order of its own."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=draw).tolist()
        yield batches(images.part(order), batch_size)


def _loss(model: nn.Module, original: nn.Module, x: Tensor, temperature: float) -> Tensor:
    with torch.no_grad():
        target = answers(original(x), len(x))
    return distillation(answers(model(x), len(x)).float(), target.float(), temperature)


def _free(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _scale(parameter: Tensor) -> float:
    return max(SMALLEST_SCALE, float(parameter.detach().float().square().mean().sqrt()))


def _restore(start: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    with torch.no_grad():
        for parameter, value in start:
            parameter.copy_(value)


@contextmanager
def _training(*nets: nn.Module) -> Iterator[None]:
    """Eval mode; on leaving, modes, requires_grad and gradients are what they were."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for net in nets for parameter in net.parameters()]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, needed, gradient in flags:
            parameter.requires_grad_(needed).grad = gradient
