"""What a routing does to one layer for one batch, as plain tensors, and the ways to run it.

    y = outputs * (conv(inputs * x, taps * sum_k mix_k W_k) + bias)        image by image

There are three. Gates on activations leave the kernel alone and run the layer itself. A sum of K static convolutions
runs each W_k and weights what comes out: no kernel depends on the image, so that any runtime can do it. Per-sample
kernels are worked out first and run as one grouped convolution, which costs the multiply-adds of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..specs import Shape

Form = Literal["each", "sum"]
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LAST = {1: (-1,), 2: (-2, -1), 3: (-3, -2, -1)}  # the axes of positions
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

    def terms(self, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """(batch, T) weights and (T, out, in / groups, *kernel size) static kernels: each image's is their sum."""
        if self.kernel is not None:
            return None
        weights, kernels = self.mix, self.kernels
        if weights is None or kernels is None:
            weights, kernels = weight.new_ones(1, 1), weight[None]
        if self.taps is None:
            return weights, kernels
        taps = self.taps.flatten(1)
        one_tap = torch.eye(taps.shape[1], dtype=weight.dtype, device=weight.device)
        apart = kernels[:, None] * one_tap.view(-1, 1, 1, *weight.shape[2:])
        return (weights[:, :, None] * taps[:, None]).flatten(1), apart.flatten(0, 1)


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

    Raises NotImplementedError for the form "sum" where a kernel is no sum of static ones.
    """
    learning = torch.is_grad_enabled()
    if not learning and form == "each" and _fits_in_kernels(layer, x, weight, modulation):
        kernels = with_scales(modulation, modulation.kernel_of(weight), layer.groups)
        return _per_sample(layer, x if modulation.x is None else modulation.x, kernels)
    spatial = weight.ndim - 2
    x = x if modulation.x is None else modulation.x
    x = x if modulation.inputs is None else x * along(modulation.inputs, x, spatial)
    if modulation.keeps_kernel:
        y = static(x)
    else:
        each = form == "each"
        y = _per_sample(layer, x, modulation.kernel_of(weight)) if each else _summed(layer, x, weight, modulation)
        y = y if layer.bias is None else y + layer.bias.view(-1, *[1] * spatial)
    if modulation.outputs is None:
        return y
    outputs = along(modulation.outputs, y, spatial)
    return y * outputs if learning else y.mul_(outputs)  # in place: half the time of a pass


def _fits_in_kernels(layer: Any, x: Tensor, weight: Tensor, modulation: Modulation) -> bool:
    """Whether there are scales of channels that go into the kernels, where these are small beside the images.

    That saves a pass over the image for each scale, but a convolution of each image by itself is slower than one of
    all unless the images are large. Time against scaling the input first (benchmarks/scales.py, one thread, 32 images,
    3x3): 0.82 for 16 channels of 32 x 32, 0.91 for 64 of 56 x 56, 1.11 for 128 of 28 x 28, 1.48 for 32 of 16 x 16.
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
    spatial = kernel.ndim - 2
    padding: Any = layer.padding
    if type(layer).__name__.endswith("Conv2dSame"):
        from timm.layers.padding import pad_same

        x, padding = pad_same(x, list(kernel.shape[2:]), layer.stride, layer.dilation), 0
    elif layer.padding_mode != "zeros":
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
    return _CONV[spatial](x, kernel.to(x.dtype), None, layer.stride, padding, layer.dilation, groups)


def _per_sample(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """Each image of x by its own of the kernels (batch or 1, out, in / groups, *kernel size); without bias."""
    batch, _, *size = x.shape
    if kernel.shape[0] != batch:
        kernel = kernel.expand(batch, *kernel.shape[1:])
    apart = x.is_contiguous()
    if apart and _is_product(layer, kernel):  # half the time of a grouped convolution, and of any batch
        return torch.bmm(kernel.flatten(2).to(x.dtype), x.flatten(2)).view(batch, -1, *size)
    y = convolve(layer, x.reshape(1, -1, *size), kernel.flatten(0, 1), batch * layer.groups)
    y = y.view(batch, -1, *y.shape[2:])
    last = not apart and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def _is_product(layer: Any, kernel: Tensor) -> bool:
    """Whether the layer is, at every position by itself, a matrix times the channels there."""
    plain = set(kernel.shape[3:]) == {1} and set(layer.stride) == {1} and layer.groups == 1
    return plain and (isinstance(layer.padding, str) or not any(layer.padding))


def _summed(layer: Any, x: Tensor, weight: Tensor, modulation: Modulation) -> Tensor:
    terms = modulation.terms(weight)
    if terms is None:
        raise NotImplementedError("this routing's kernels are no sum of static ones")
    weights, kernels = terms
    spatial = kernels.ndim - 3
    parts = (
        convolve(layer, x, kernel, layer.groups) * share.to(x.dtype).view(-1, *[1] * (spatial + 1))
        for share, kernel in zip(weights.unbind(1), kernels.unbind(0), strict=True)
    )
    return sum(parts, start=x.new_zeros(()))
