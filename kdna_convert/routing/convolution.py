"""The ways to run a layer under a modulation.

A modulation that keeps the kernel scales activations and runs the layer itself. If each image has a kernel of its own,
the form "each" computes these kernels and runs them as one grouped convolution, which takes the multiply-adds of a
plain one. It has as many groups as the batch has images, which a graph for batches of any size cannot have. The form
"static" therefore runs a mixture as a weighted sum of its K static convolutions, and any other kernel as a matrix that
multiplies the image's patches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.padding import pad, pads_same
from .modulation import Modulation, scale_channels
from .supported import is_exact

KernelForm = Literal["each", "static"]
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# If the kernels of a batch have more numbers than this, and 20 times those of its images, a grouped convolution takes
# longer than a product with the patches: 1.4 to 2 times at 512 channels of 7 x 7 (benchmarks/scales.py).
_LARGE = 1 << 24


def run(
    layer: Any, static: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, modulation: Modulation, form: KernelForm
) -> Tensor:
    """The layer's output under a modulation.

    Args:
        layer: The convolution or linear layer.
        static: The layer's forward pass without its router.
        x: A batch of inputs.
        weight: The layer's kernel.
        modulation: What the router returned for `x`.
        form: How kernels that differ between images are run.
    """
    training = torch.is_grad_enabled()
    if not training and form == "each" and _scales_kernels(layer, x, weight, modulation):
        kernels = scale_channels(modulation, modulation.kernel_of(weight), layer.groups)
        return per_sample(layer, x if modulation.x is None else modulation.x, kernels)
    spatial = weight.ndim - 2
    x = x if modulation.x is None else modulation.x
    x = x if modulation.inputs is None else x * _along(modulation.inputs, x, spatial)
    if modulation.keeps_kernel:
        y = static(x)
    else:
        terms = modulation.terms() if form == "static" else None
        convolution = per_sample if form == "each" else by_patches
        y = convolution(layer, x, modulation.kernel_of(weight)) if terms is None else _weighted_sum(layer, x, *terms)
        y = y if layer.bias is None else y + layer.bias.view(-1, *[1] * spatial)
    if modulation.outputs is None:
        return y
    outputs = _along(modulation.outputs, y, spatial)
    return y * outputs if training else y.mul_(outputs)  # in place: half the time of a pass


def _scales_kernels(layer: Any, x: Tensor, weight: Tensor, modulation: Modulation) -> bool:
    """Whether the factors of the channels multiply the kernels, because these are small compared with the images.

    This saves a pass over the image for each factor, but a convolution of each image by itself is slower than one of
    the batch unless the images are large. Time relative to scaling the input first (benchmarks/scales.py, one thread,
    32 images, 3x3): 0.84 for 16 channels of 32 x 32, 1.04 for 64 of 56 x 56 (0.8 if freed memory is not kept), 1.14
    for 128 of 28 x 28, 1.34 for 32 of 16 x 16.
    """
    if modulation.inputs is None and modulation.outputs is None:
        return False
    times = 4 if modulation.keeps_kernel else 1
    if times * weight.numel() * x.shape[0] > x.numel():
        return False
    return weight.ndim > 2 and layer.bias is None and is_exact(type(layer).__name__.removeprefix("Parametrized"))


def _along(factor: Tensor, x: Tensor, spatial: int) -> Tensor:
    """Factors (batch, channels) in the shape that multiplies x: channels are axis 1 of a conv's input, the last of a
    linear layer's."""
    factor = factor.to(x.dtype)
    if spatial:
        return factor.view(*factor.shape, *(1,) * spatial)
    return factor.reshape(factor.shape[0], *[1] * (x.ndim - 2), factor.shape[-1])


def convolve(layer: Any, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Convolve x as the layer does, with this kernel and this number of groups, without bias."""
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or pads_same(layer):
        x, padding = pad(layer, x, kernel.shape[2:]), 0
    return _CONV[kernel.ndim - 2](x, kernel.to(x.dtype), None, layer.stride, padding, layer.dilation, groups)


def per_sample(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each image of x with its own kernel, without bias.

    Args:
        layer: The convolution, for its stride, padding, dilation and groups.
        x: (batch, in, *size).
        kernel: (batch or 1, out, in / groups, *kernel size).
    """
    batch, _, *size = x.shape
    if kernel.shape[0] != batch:
        kernel = kernel.expand(batch, *kernel.shape[1:])
    contiguous = x.is_contiguous()
    if contiguous and _is_product(layer, kernel):  # half the time of a grouped convolution, and of any batch
        return torch.bmm(kernel.flatten(2).to(x.dtype), x.flatten(2)).view(batch, -1, *size)
    if kernel.numel() > max(_LARGE, 20 * x.numel()):
        return by_patches(layer, x, kernel)
    y = convolve(layer, x.reshape(1, -1, *size), kernel.flatten(0, 1), batch * layer.groups)
    y = y.view(batch, -1, *y.shape[2:])
    channels_last = not contiguous and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if channels_last else y


def _is_product(layer: Any, kernel: Tensor) -> bool:
    """Whether the layer multiplies the channels of each position by a matrix, and does nothing else."""
    plain = set(kernel.shape[3:]) == {1} and set(layer.stride) == {1} and layer.groups == 1
    return plain and (isinstance(layer.padding, str) or not any(layer.padding))


def _weighted_sum(layer: Any, x: Tensor, weights: Tensor, kernels: Tensor) -> Tensor:
    """A sum of static convolutions, weighted by (batch or 1, K) `weights`, without bias."""
    spatial = kernels.ndim - 3
    parts = (
        convolve(layer, x, kernel, layer.groups) * share.to(x.dtype).view(-1, *[1] * (spatial + 1))
        for share, kernel in zip(weights.unbind(1), kernels.unbind(0), strict=True)
    )
    return sum(parts, start=x.new_zeros(()))


def by_patches(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """The same as per_sample, by operations that do not depend on the batch size: kernels as matrices times patches."""
    size, whole = kernel.shape[3:], [slice(None)]
    x = pad(layer, x, size)
    axes = zip(x.shape[2:], size, layer.stride, layer.dilation, strict=True)
    windows = [_windows(*axis) for axis in axes]
    patches = torch.stack([x[window] for window in product(whole, whole, *windows)], 2)  # (batch, in, taps, *positions)
    positions = patches.shape[3:]
    patches = patches.flatten(3).unflatten(1, (layer.groups, -1)).flatten(2, 3)
    y = kernel.flatten(2).unflatten(1, (layer.groups, -1)).to(x.dtype) @ patches
    output: Tensor = y.flatten(1, 2).unflatten(2, positions)
    return output


def _windows(length: int, taps: int, stride: int, dilation: int) -> list[slice]:
    """For each tap of one axis of a kernel, the positions of the input that it multiplies."""
    last = (length - dilation * (taps - 1) - 1) // stride * stride
    return [slice(tap * dilation, tap * dilation + last + 1, stride) for tap in range(taps)]
