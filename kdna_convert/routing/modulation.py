"""What a routing does to one layer for one batch, as plain tensors, and the ways to run it.

    y = outputs * (conv(inputs * x, taps * sum_k mix_k W_k) + bias)        image by image

Gates on activations leave the kernel alone and run the layer itself. Where there is a kernel for each image, the form
"each" works these out and runs them as one grouped convolution, which costs the multiply-adds of one. Its groups are as
many as the batch is large, which no graph for any batch can have: the form "static" runs a mixture as a sum of its K
convolutions, each weighted by its share, and any other kernel as a matrix, times the image's patches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.padding import pad, pads_same
from ..core.specs import Shape

Form = Literal["each", "static"]
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LAST = {1: (-1,), 2: (-2, -1), 3: (-3, -2, -1)}  # the axes of positions
# Where a batch's kernels have more numbers than this, and 20 times those of its images, a grouped convolution takes
# longer than a product with the patches: 1.4 to 2 times at 512 channels of 7 x 7 (benchmarks/scales.py).
_LARGE = 1 << 24
_EXACT = ("Conv1d", "Conv2d", "Conv3d", "Conv2dSame")


class Modulation(NamedTuple):
    """Every field is None where it changes nothing: ones, the input as it is, the layer's own kernel.

    `x` is the input that takes the place of the layer's, of its shape. `inputs` (batch, in) and `outputs` (batch, out)
    scale channels, `taps` (batch, *kernel size) the kernel's positions. `mix` (batch, K) weights the static `kernels`
    (K, out, in / groups, *kernel size). `kernel` (batch, out, in / groups, *kernel size) is what no such sum can be.
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
        return self.taps is None and self.mix is None and self.kernel is None

    def kernel_of(self, weight: Tensor) -> Tensor:
        """(batch or 1, out, in / groups, *kernel size): each image's kernel, without the channels' scales."""
        kernel = weight[None] if self.kernel is None else self.kernel
        if self.mix is not None and self.kernels is not None:
            kernel = (self.mix @ self.kernels.flatten(1)).view(-1, *weight.shape)
        return kernel if self.taps is None else kernel * self.taps[:, None, None]

    def terms(self) -> tuple[Tensor, Tensor] | None:
        """(batch, K) weights of K static kernels (K, out, in / groups, *kernel size), if each image's is their sum."""
        if self.mix is None or self.kernels is None or self.kernel is not None or self.taps is not None:
            return None
        return self.mix, self.kernels


def whole_kernels(modulation: Modulation, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Each image's kernel with all that scales its channels in it, (batch or 1, out, in / groups, *kernel size); and
    the factor on the bias, (batch or 1, out). An input that is transformed counts by its projection on `x`."""
    kernel, factor = modulation.kernel_of(weight), weight.new_ones(1, len(weight))
    if modulation.x is not None:
        positions = tuple(range(2, x.ndim))
        share = (modulation.x * x).sum(positions) / x.square().sum(positions).clamp_min(1e-30)
        kernel = kernel * per_group(share, weight.shape, groups)
    kernel = with_scales(modulation, kernel, groups)
    return kernel, factor if modulation.outputs is None else modulation.outputs


def with_scales(modulation: Modulation, kernel: Tensor, groups: int) -> Tensor:
    """(batch or 1, out, in / groups, *kernel size) kernels with the scales of the channels in them."""
    inputs, outputs = modulation.inputs, modulation.outputs
    if inputs is not None:
        kernel = kernel * per_group(inputs, kernel.shape[1:], groups)
    if outputs is not None:
        kernel = kernel * outputs.view(*outputs.shape, *(1,) * (kernel.ndim - 2))
    return kernel


def per_group(factor: Tensor, shape: Shape, groups: int) -> Tensor:
    """A (batch, in) factor as (batch, out or 1, in / groups, 1 ...): what of it each output channel's kernel sees, of
    kernels of `shape` (out, in / groups, *kernel size)."""
    batch, ones = factor.shape[0], (1,) * (len(shape) - 2)
    if groups == 1:
        return factor.view(batch, 1, -1, *ones)
    seen = factor.view(batch, groups, -1).repeat_interleave(shape[0] // groups, 1)
    return seen.view(*seen.shape, *ones)


def run(
    layer: Any, static: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, modulation: Modulation, form: Form
) -> Tensor:
    """The layer's output under a modulation. `static` is the layer without routing, `x` a batch, `weight` the layer's
    kernel, which may cost something to ask for.
    """
    learning = torch.is_grad_enabled()
    if not learning and form == "each" and _fits_in_kernels(layer, x, weight, modulation):
        kernels = with_scales(modulation, modulation.kernel_of(weight), layer.groups)
        return per_sample(layer, x if modulation.x is None else modulation.x, kernels)
    spatial = weight.ndim - 2
    x = x if modulation.x is None else modulation.x
    x = x if modulation.inputs is None else x * along(modulation.inputs, x, spatial)
    if modulation.keeps_kernel:
        y = static(x)
    else:
        terms = modulation.terms() if form == "static" else None
        way = per_sample if form == "each" else by_patches
        y = way(layer, x, modulation.kernel_of(weight)) if terms is None else _summed(layer, x, *terms)
        y = y if layer.bias is None else y + layer.bias.view(-1, *[1] * spatial)
    if modulation.outputs is None:
        return y
    outputs = along(modulation.outputs, y, spatial)
    return y * outputs if learning else y.mul_(outputs)  # in place: half the time of a pass


def _fits_in_kernels(layer: Any, x: Tensor, weight: Tensor, modulation: Modulation) -> bool:
    """Whether there are scales of channels that go into the kernels, where these are small beside the images.

    That saves a pass over the image for each scale, but a convolution of each image by itself is slower than one of
    all unless the images are large. Time against scaling the input first (benchmarks/scales.py, one thread, 32 images,
    3x3): 0.84 for 16 channels of 32 x 32, 1.04 for 64 of 56 x 56 (0.8 where freed memory is not kept), 1.14 for 128 of
    28 x 28, 1.34 for 32 of 16 x 16.
    """
    if modulation.inputs is None and modulation.outputs is None:
        return False
    times = 4 if modulation.keeps_kernel else 1
    if times * weight.numel() * x.shape[0] > x.numel():
        return False
    return weight.ndim > 2 and layer.bias is None and is_exact(type(layer).__name__.removeprefix("Parametrized"))


def along(factor: Tensor, x: Tensor, spatial: int) -> Tensor:
    """A (batch, channels) factor shaped to multiply x: channels second of a conv's input, last of a linear layer's."""
    factor = factor.to(x.dtype)
    if spatial:
        return factor.view(*factor.shape, *(1,) * spatial)
    return factor.reshape(factor.shape[0], *[1] * (x.ndim - 2), factor.shape[-1])


def pooled(x: Tensor, spatial: int) -> Tensor:
    """(batch, channels): the mean over positions of a conv's input, or over tokens of a linear layer's."""
    if spatial:
        return x.mean(_LAST[spatial])
    return x.mean(tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x


def is_exact(kind: str) -> bool:
    """Whether a layer of this class does nothing but multiply patches by the kernel it is given."""
    return kind in _EXACT


def convolve(layer: Any, x: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """What the layer, of a class that is_exact, would make of x with this kernel and so many groups; without bias."""
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or pads_same(layer):
        x, padding = pad(layer, x, kernel.shape[2:]), 0
    return _CONV[kernel.ndim - 2](x, kernel.to(x.dtype), None, layer.stride, padding, layer.dilation, groups)


def per_sample(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """Each image of x by its own of the kernels (batch or 1, out, in / groups, *kernel size); without bias."""
    batch, _, *size = x.shape
    if kernel.shape[0] != batch:
        kernel = kernel.expand(batch, *kernel.shape[1:])
    apart = x.is_contiguous()
    if apart and _is_product(layer, kernel):  # half the time of a grouped convolution, and of any batch
        return torch.bmm(kernel.flatten(2).to(x.dtype), x.flatten(2)).view(batch, -1, *size)
    if kernel.numel() > max(_LARGE, 20 * x.numel()):
        return by_patches(layer, x, kernel)
    y = convolve(layer, x.reshape(1, -1, *size), kernel.flatten(0, 1), batch * layer.groups)
    y = y.view(batch, -1, *y.shape[2:])
    last = not apart and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def _is_product(layer: Any, kernel: Tensor) -> bool:
    """Whether the layer is, at every position by itself, a matrix times the channels there."""
    plain = set(kernel.shape[3:]) == {1} and set(layer.stride) == {1} and layer.groups == 1
    return plain and (isinstance(layer.padding, str) or not any(layer.padding))


def _summed(layer: Any, x: Tensor, weights: Tensor, kernels: Tensor) -> Tensor:
    """A sum of static convolutions, each image's weighted by (batch or 1, K) `weights`; without bias."""
    spatial = kernels.ndim - 3
    parts = (
        convolve(layer, x, kernel, layer.groups) * share.to(x.dtype).view(-1, *[1] * (spatial + 1))
        for share, kernel in zip(weights.unbind(1), kernels.unbind(0), strict=True)
    )
    return sum(parts, start=x.new_zeros(()))


def by_patches(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """What per_sample gives, by operations that do not depend on the batch: kernels as matrices, times patches."""
    size, whole = kernel.shape[3:], [slice(None)]
    x = pad(layer, x, size)
    along_axes = zip(x.shape[2:], size, layer.stride, layer.dilation, strict=True)
    windows = [_windows(*axis) for axis in along_axes]
    patches = torch.stack([x[seen] for seen in product(whole, whole, *windows)], 2)  # (batch, in, taps, *places)
    places = patches.shape[3:]
    patches = patches.flatten(3).unflatten(1, (layer.groups, -1)).flatten(2, 3)
    y = kernel.flatten(2).unflatten(1, (layer.groups, -1)).to(x.dtype) @ patches
    output: Tensor = y.flatten(1, 2).unflatten(2, places)
    return output


def _windows(length: int, taps: int, stride: int, dilation: int) -> list[slice]:
    """For each tap of one axis of a kernel, the positions of the input that it meets."""
    last = (length - dilation * (taps - 1) - 1) // stride * stride
    return [slice(tap * dilation, tap * dilation + last + 1, stride) for tap in range(taps)]
