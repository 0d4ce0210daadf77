"""Choose the dynamic filters of a partial routing: those that different images need to change differently.

The score of a filter is the variance, over images, of the loss's gradient with respect to it: the part that one static
filter cannot follow. At the identity we know no better measure, since the first step of a dynamic filter is the
gradient of the image. The labels are sampled from the net's own softmax, so no labels are needed, and the mean gradient
of a trained net is only noise.

PAD-Net reduces the dynamic filters from all to the ratio in rounds. Each round scores a net whose other filters have
just become static, and its experts differ already. Here they do not: at the identity every round would score the same
net, so one round decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import DataError, ModelError
from ..core.modes import eval_mode
from .modulation import Modulation
from .partial import PartialRouter
from .router import Router, routers

# A trained net is nearly certain of its images: labels sampled at temperature 1 give almost no gradient.
_TEMPERATURE = 2.0


def choose_filters(model: nn.Module, batches: Iterable[Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Choose the dynamic filters of every partial router, in place, layer by layer. The outputs do not change.

    Args:
        model: The routed net.
        batches: Batches of unlabeled inputs.
        seed: Seed of the labels that are sampled.

    Returns:
        The scores of each layer's filters, (filters,).

    Raises:
        ValueError: A router is not at the identity: it was trained. Nothing is changed.
        DataError: KD405 without an image.
        ModelError: KD308 if the net does not return (batch, classes).
    """
    partial = {name: router for name, router in routers(model).items() if isinstance(router, PartialRouter)}
    for name, router in partial.items():
        if not router.is_identity():
            raise ValueError(f"{name}: its router has been trained; choose its filters before that")
    scores = gradient_variance(model, list(partial), batches, seed)
    for name, router in partial.items():
        router.index.copy_(scores[name].topk(len(router.index)).indices.sort().values)
    return scores


def gradient_variance(
    model: nn.Module, names: Iterable[str], batches: Iterable[Tensor], seed: int = 0
) -> dict[str, Tensor]:
    """The variance over images of the loss's gradient by each filter, summed over the filter's weights.

    The loss is the cross-entropy against labels that are sampled from the net's own softmax at temperature 2. The
    layers run without their routers, in eval mode; the model does not change.

    Args:
        model: The routed net.
        names: The routed layers to score.
        batches: Batches of unlabeled inputs.
        seed: Seed of the labels.

    Returns:
        (filters,) of each layer, float64.

    Raises:
        DataError: KD405 without an image.
        ModelError: KD308 if the net does not return (batch, classes).
    """
    existing, generator = routers(model), torch.Generator().manual_seed(seed)
    probes = {name: _Probe(existing[name].spatial) for name in names}
    empty = True
    with _probing(model, probes):
        for batch in batches:
            loss = _sampled_loss(model(batch), len(batch), generator)
            running = [(probe, kernel) for probe in probes.values() for kernel in probe.kernels]
            gradients = torch.autograd.grad(loss, [kernel for _, kernel in running]) if running else ()
            for (probe, _), gradient in zip(running, gradients, strict=True):
                probe.add(gradient)
            for probe in probes.values():
                probe.kernels.clear()
            empty = False
    if empty:
        raise DataError("KD405", "no calibration image was given; pass at least one")
    return {name: probe.variance() for name, probe in probes.items()}


class _Probe(Router):
    """Runs its layer with a copy of the kernel for each image, so that each copy has the gradient of its own image."""

    def __init__(self, spatial: int) -> None:
        super().__init__(spatial)
        self.kernels: list[Tensor] = []  # of the current batch
        self.images, self.squares, self.total = 0, torch.zeros(()), torch.zeros(())

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        kernel = weight.detach().expand(len(x), *weight.shape).clone().requires_grad_()
        self.kernels.append(kernel)
        return Modulation(kernel=kernel)

    def add(self, gradient: Tensor) -> None:
        """Add gradients (images, filters, in, *kernel size) to the sums."""
        each = gradient.double().flatten(2)
        self.images += len(each)
        self.squares = each.square().sum((0, 2)) + self.squares.to(each)
        self.total = each.sum(0) + self.total.to(each)

    def variance(self) -> Tensor:
        return self.squares / self.images - (self.total / self.images).square().sum(1)


@contextmanager
def _probing(model: nn.Module, probes: Mapping[str, _Probe]) -> Iterator[None]:
    """Put the model in eval mode with probes instead of routers; both are undone on exit."""
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in probes}
    gates = {name: cast("Router", layer.gate) for name, layer in layers.items()}
    try:
        for name, probe in probes.items():
            layers[name].gate = probe
        with eval_mode(model), torch.enable_grad():
            yield
    finally:
        for name, gate in gates.items():
            layers[name].gate = gate


def _sampled_loss(output: object, images: int, generator: torch.Generator) -> Tensor:
    """Cross-entropy, summed over images, against labels sampled from the net's own softened softmax."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != images:
        raise ModelError("KD308", "the net does not return one row of logits for every image")
    logits = output.float() / _TEMPERATURE
    labels = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator).squeeze(1)
    return F.cross_entropy(logits, labels.to(logits.device), reduction="sum")
