"""A convolution's own padding, applied to its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

# timm's convolutions that pad by the size of each input, as TensorFlow does. By name, since core does not import timm.
_SAME = frozenset({"Conv2dSame", "Conv2dSameExport", "StdConv2dSame", "ScaledStdConv2dSame"})


def pads_same(layer: Any) -> bool:
    """Whether a convolution works out its padding from the size of each input."""
    names = {kind.__name__ for kind in type(layer).__mro__}
    return bool(names & _SAME) and getattr(layer, "same_pad", True)


def pad(layer: Any, x: Tensor, kernel_size: Sequence[int] | None = None) -> Tensor:
    """The input (batch, channels, *size) of a convolution with the layer's padding around it.

    `kernel_size` replaces that of the layer, for "same" padding.
    """
    if pads_same(layer):
        taps = tuple(layer.kernel_size if kernel_size is None else kernel_size)
        widths: list[int] = []
        for size, kernel, stride, dilation in zip(x.shape[2:], taps, layer.stride, layer.dilation, strict=True):
            total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
            widths = [total // 2, total - total // 2, *widths]
        return F.pad(x, widths)
    both = list(layer._reversed_padding_repeated_twice)
    mode = str(getattr(layer, "padding_mode", "zeros"))
    if not any(both):
        return x
    return F.pad(x, both, mode="constant" if mode == "zeros" else mode)
