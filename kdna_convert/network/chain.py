"""A layer as a chain of plain layers, which runs the factors of a scheme instead of its dense kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

# The plain layer for a kernel with this many axes of taps.
_PLAIN = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def is_plain(cls: type[nn.Module], groups: int) -> bool:
    """Whether a layer of this class multiplies patches of all channels by its unchanged weight.

    timm's convolution with "same" padding does; its weight-standardizing ones and unknown classes may not.
    """
    same = cls.__name__ == "Conv2dSame" and cls.__module__.startswith("timm.")
    return groups == 1 and (same or cls in _PLAIN.values())


def build_chain(cls: type[nn.Module], layer: Any, kernels: Sequence[Tensor]) -> nn.Sequential | None:
    """A chain of plain layers with copies of these kernels and of the layer's bias.

    The kernel with taps (the first, if all are pointwise) gets the layer's class, stride, padding and dilation. The
    last gets the bias.

    Args:
        cls: The layer's class before it was derived.
        layer: The layer.
        kernels: (out, in / groups, *taps) each, in the order in which they run.

    Returns:
        The chain, or None for a linear layer with a diagonal factor.
    """
    channels = [layer.weight.shape[1], *(len(kernel) for kernel in kernels)]
    if cls is nn.Linear and any(kernel.shape[1] != c for kernel, c in zip(kernels, channels, strict=False)):
        return None
    spatial = max(range(len(kernels)), key=lambda place: prod(kernels[place].shape[2:]))
    biases = [None] * (len(kernels) - 1) + [layer.bias]
    stages = [
        _stage(kernel, channels[place], bias, (cls, layer) if place == spatial else None)
        for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
    ]
    return nn.Sequential(*stages).train(layer.training)


def _stage(kernel: Tensor, channels: int, bias: Tensor | None, like: tuple[type[nn.Module], Any] | None) -> nn.Module:
    """One layer with `channels` input channels. `like` is a class and a layer whose stride and padding it takes."""
    taps = tuple(kernel.shape[2:])
    cls: Any = _PLAIN[len(taps)]
    options: dict[str, Any] = {"kernel_size": taps, "groups": channels // kernel.shape[1]} if taps else {}
    if like is not None:
        cls, layer = like
        options |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation") if taps}
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            options["padding_mode"] = layer.padding_mode
    with torch.device("meta"):  # without drawing random numbers
        stage: nn.Module = cls(channels, len(kernel), bias=bias is not None, **options)
    stage.weight = _parameter(kernel)
    if bias is not None:
        stage.bias = _parameter(bias)
    return stage


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))
