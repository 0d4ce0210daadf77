"""Second moments of the inputs of layers, and of the loss's gradient at their outputs.

The moment of n inputs is an n x n matrix. If memory is short, the largest layers keep its Kronecker form instead,
channels (x) taps: 1 MB instead of 85 MB for 512 channels of 3x3, and a ninth of the arithmetic. It costs accuracy: six
layers of a CIFAR ResNet-56, fitted by low rank at half their parameters, had 10-34 % more output error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...core.linalg import Moment
from ...core.specs import Layer

MomentForm = Literal["full", "kronecker"]


@dataclass(frozen=True)
class LayerMoments:
    """Statistics of one layer, float32 on the CPU.

    An input patch u has n = input channels of a group x taps numbers, channels first; groups are averaged.

    Attributes:
        second: E[u u^T], not centered.
        mean: E[u], (n).
        count: How many patches were averaged; 0 for moments that were made without data.
        gradient: E over images of the sum over output positions of g g^T, with g the gradient of the loss at one
            position of the output: the diagonal (out) or the whole matrix (out x out). Zeros if unknown.
        gram_ee: U-centered Gram matrix of the outputs for up to 256 images, of norm 1. The inner product of two layers'
            Gram matrices is their debiased CKA.
    """

    second: Moment
    mean: Tensor
    count: int
    gradient: Tensor
    gram_ee: Tensor | None = None

    @property
    def sensitivity(self) -> float:
        """The mean over channels of `sensitivity_o`: the weight of the layer's output error."""
        return float(self.sensitivity_o.mean())

    @property
    def sensitivity_o(self) -> Tensor:
        """The mean squared gradient at each output channel, summed over positions."""
        return self.gradient.diagonal() if self.gradient.ndim == 2 else self.gradient


Moments = dict[str, LayerMoments]


def plan_memory(layers: Sequence[Layer], memory: int) -> dict[str, MomentForm]:
    """Choose the form of each layer's moment so that all of them together take at most `memory` bytes.

    The largest become Kronecker products first. Layers that still do not fit are missing from the result.
    """
    forms: dict[str, MomentForm] = {layer.name: "full" for layer in layers}
    largest = sorted(layers, key=lambda layer: -layer.patch)
    excess = sum(_bytes(layer, forms[layer.name]) for layer in layers) - memory
    for layer in largest:
        if excess > 0 and forms[layer.name] == "full" and layer.taps > 1:
            excess -= _bytes(layer, "full") - _bytes(layer, "kronecker")
            forms[layer.name] = "kronecker"
    for layer in sorted(layers, key=lambda layer: -_bytes(layer, forms[layer.name])):
        if excess > 0:
            excess -= _bytes(layer, forms.pop(layer.name))
    return forms


def _bytes(layer: Layer, form: MomentForm) -> int:
    return 4 * (layer.patch**2 if form == "full" else layer.in_channels**2 + layer.taps**2)
