"""Second moments of the inputs of layers, and of the loss's gradient at their outputs.

The moment of n inputs is an n x n matrix. If memory is short, the largest layers keep its Kronecker form instead,
channels (x) taps: 1 MB instead of 42 MB for 512 channels of 3x3, and a ninth of the arithmetic. It costs accuracy: six
layers of a CIFAR ResNet-56, fitted by low rank at half their parameters, had 10-34 % more output error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...core.linalg import Kronecker, Moment
from ...core.specs import Layer
from ...core.triangle import Triangle

MomentForm = Literal["full", "kronecker"]


@dataclass(frozen=True)
class LayerMoments:
    """Statistics of one layer, float32 on the CPU.

    An input patch u has n = input channels of a group x taps numbers, channels first; groups are averaged.

    Attributes:
        packed: E[u u^T], not centered, as its lower triangle or as two factors.
        mean: E[u], (n).
        count: How many patches were averaged; 0 for moments that were made without data.
        gradient: E over images of the sum over output positions of g g^T, with g the gradient of the loss at one
            position of the output: the diagonal (out) or the whole matrix (out x out). Zeros if unknown.
        gram_ee: U-centered Gram matrix of the outputs for up to 256 images, of norm 1. The inner product of two layers'
            Gram matrices is their debiased CKA.
    """

    packed: Triangle | Kronecker
    mean: Tensor
    count: int
    gradient: Tensor
    gram_ee: Tensor | None = None

    @property
    def second(self) -> Moment:
        """E[u u^T] as a matrix, made from the triangle at each call, or as two factors."""
        return self.packed.whole() if isinstance(self.packed, Triangle) else self.packed

    @property
    def sensitivity(self) -> float:
        """The mean over channels of `sensitivity_o`: the weight of the layer's output error."""
        return float(self.sensitivity_o.mean())

    @property
    def sensitivity_o(self) -> Tensor:
        """The mean squared gradient at each output channel, summed over positions."""
        return self.gradient.diagonal() if self.gradient.ndim == 2 else self.gradient


def packed(moment: Moment) -> Triangle | Kronecker:
    """A moment as LayerMoments keeps it."""
    return moment if isinstance(moment, Kronecker) else Triangle.of(moment)


Moments = dict[str, LayerMoments]


def plan_memory(layers: Sequence[Layer], memory: int) -> dict[str, MomentForm]:
    """Choose the form of each layer's moment so that all of them together take at most `memory` bytes at any time.

    The largest become Kronecker products first. Layers that still do not fit are missing from the result.
    """
    forms: dict[str, MomentForm] = {layer.name: "full" for layer in layers}
    for layer in sorted(layers, key=lambda layer: -layer.patch):
        if needed(layers, forms) > memory and layer.taps > 1:
            forms[layer.name] = "kronecker"
    for layer in sorted(layers, key=lambda layer: -sum_bytes(layer, forms[layer.name])):
        if needed(layers, forms) > memory:
            del forms[layer.name]
    return forms


def needed(layers: Sequence[Layer], forms: Mapping[str, MomentForm]) -> int:
    """The most bytes that the sums take at once: all of them, and one whole matrix, which puts the taps in order."""
    kept = [layer for layer in layers if layer.name in forms]
    widest = max((_width(layer, forms[layer.name]) for layer in kept), default=0)
    return sum(sum_bytes(layer, forms[layer.name]) for layer in kept) + 4 * widest**2


def sum_bytes(layer: Layer, form: MomentForm) -> int:
    """The bytes of a layer's sum: about two thirds of a matrix, as a triangle in strips."""
    return 4 * (2 * _width(layer, form) ** 2 // 3 + (layer.taps**2 if form == "kronecker" else 0))


def _width(layer: Layer, form: MomentForm) -> int:
    return layer.patch if form == "full" else layer.in_channels
