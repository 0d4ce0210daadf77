"""The changes of a router to its layer for one batch, as plain tensors.

y = outputs * (conv(inputs * x, taps * sum_k mix_k W_k) + bias)        image by image
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..core.specs import Shape


class Modulation(NamedTuple):
    """The changes to a layer for one batch. None means no change: factors of one, the input, the layer's own kernel.

    Attributes:
        x: A tensor that replaces the input, of the same shape.
        inputs: Factors of the input channels, (batch, in).
        outputs: Factors of the output channels, (batch, out).
        taps: Factors of the kernel's positions, (batch, *kernel size).
        mix: Weights of the static `kernels`, (batch, K).
        kernels: K static kernels, (K, out, in / groups, *kernel size).
        kernel: A kernel for each image, (batch, out, in / groups, *kernel size), if it is not such a sum.
    """

    x: Tensor | None = None
    inputs: Tensor | None = None
    outputs: Tensor | None = None
    taps: Tensor | None = None
    mix: Tensor | None = None
    kernels: Tensor | None = None
    kernel: Tensor | None = None

    @property
    def keeps_kernel(self) -> bool:
        """Whether every image is convolved with the layer's own kernel."""
        return self.taps is None and self.mix is None and self.kernel is None

    def kernel_of(self, weight: Tensor) -> Tensor:
        """The kernel of each image without the channel factors, (batch or 1, out, in / groups, *kernel size)."""
        kernel = weight[None] if self.kernel is None else self.kernel
        if self.mix is not None and self.kernels is not None:
            kernel = (self.mix @ self.kernels.flatten(1)).view(-1, *weight.shape)
        return kernel if self.taps is None else kernel * self.taps[:, None, None]

    def terms(self) -> tuple[Tensor, Tensor] | None:
        """The weights (batch, K) and the K static kernels, if the kernel of each image is their sum; else None."""
        if self.mix is None or self.kernels is None or self.kernel is not None or self.taps is not None:
            return None
        return self.mix, self.kernels


def whole_kernels(modulation: Modulation, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The kernel of each image with all factors of its channels, and the factor of the bias.

    An input that was replaced counts by its projection on `x`, channel by channel.

    Returns:
        The kernels (batch or 1, out, in / groups, *kernel size) and the factors (batch or 1, out).
    """
    kernel, factor = modulation.kernel_of(weight), weight.new_ones(1, len(weight))
    if modulation.x is not None:
        positions = tuple(range(2, x.ndim))
        projection = (modulation.x * x).sum(positions) / x.square().sum(positions).clamp_min(1e-30)
        kernel = kernel * per_group(projection, weight.shape, groups)
    kernel = scale_channels(modulation, kernel, groups)
    return kernel, factor if modulation.outputs is None else modulation.outputs


def scale_channels(modulation: Modulation, kernel: Tensor, groups: int) -> Tensor:
    """Kernels (batch or 1, out, in / groups, *kernel size) times the factors of the input and output channels."""
    inputs, outputs = modulation.inputs, modulation.outputs
    if inputs is not None:
        kernel = kernel * per_group(inputs, kernel.shape[1:], groups)
    if outputs is not None:
        kernel = kernel * outputs.view(*outputs.shape, *(1,) * (kernel.ndim - 2))
    return kernel


def per_group(factor: Tensor, shape: Shape, groups: int) -> Tensor:
    """Factors of input channels (batch, in) in the shape that multiplies kernels of `shape` (out, in / groups, ...).

    Returns (batch, 1 or out, in / groups, 1 ...): the factors of the channels that each output channel sees.
    """
    batch, ones = factor.shape[0], (1,) * (len(shape) - 2)
    if groups == 1:
        return factor.view(batch, 1, -1, *ones)
    by_output = factor.view(batch, groups, -1).repeat_interleave(shape[0] // groups, 1)
    return by_output.view(*by_output.shape, *ones)
