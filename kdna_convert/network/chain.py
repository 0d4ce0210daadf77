"""A layer as a chain of plain layers, which runs the factors of a scheme instead of its dense kernel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

# The plain layer for a kernel with this many axes of taps.
_PLAIN = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
# What a net may read of a layer besides its weight and bias.
_SETTINGS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    *("in_features", "out_features"),
)


def is_plain(cls: type[nn.Module], groups: int) -> bool:
    """Whether a layer of this class multiplies patches of all channels by its unchanged weight.

    timm's convolution with "same" padding does; its weight-standardizing ones and unknown classes may not.
    """
    same = cls.__name__ == "Conv2dSame" and cls.__module__.startswith("timm.")
    return groups == 1 and (same or cls in _PLAIN.values())


class Chain(nn.Sequential):
    """The chain of plain layers in place of a layer. Some nets read the `weight` and `bias` of their layers."""

    __jit_unused_properties__: ClassVar[list[str]] = ["weight", "bias"]

    @property
    def weight(self) -> Tensor:
        """The dense kernel that the chain computes, (out, in, *taps)."""
        links: list[Any] = list(self)
        product_oit: Tensor = _dense(links[0])
        for link in links[1:]:
            product_oit = torch.einsum("pot,ois->pits", _dense(link), product_oit).flatten(2)
        taps = max((tuple(link.weight.shape[2:]) for link in links), key=prod)
        weight: Tensor = product_oit.reshape(*product_oit.shape[:2], *taps)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias of the last layer."""
        last: Any = self[-1]
        bias: Tensor | None = last.bias
        return bias


def _dense(link: Any) -> Tensor:
    """The kernel of a link as (out, in, taps), with zeros between groups."""
    groups = getattr(link, "groups", 1)
    weight_goit = link.weight.reshape(groups, -1, link.weight.shape[1], prod(link.weight.shape[2:]))
    every = torch.arange(groups)
    dense: Tensor = weight_goit.new_zeros(groups, weight_goit.shape[1], groups, *weight_goit.shape[2:])
    dense[every, :, every] = weight_goit
    return dense.flatten(2, 3).flatten(0, 1)


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
    if not is_chain(cls, layer, kernels):
        return None
    channels = [layer.weight.shape[1], *(len(kernel) for kernel in kernels)]
    spatial = max(range(len(kernels)), key=lambda place: prod(kernels[place].shape[2:]))
    biases = [None] * (len(kernels) - 1) + [layer.bias]
    stages = [
        _stage(kernel, channels[place], bias, (cls, layer) if place == spatial else None)
        for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True))
    ]
    chain = Chain(*stages).train(layer.training)
    for name in _SETTINGS:
        if hasattr(layer, name):
            setattr(chain, name, getattr(layer, name))
    return chain


def is_chain(cls: type[nn.Module], layer: Any, kernels: Sequence[Tensor]) -> bool:
    """Whether layers of this class can hold the kernels: linear layers have no groups."""
    channels = [layer.weight.shape[1], *(len(kernel) for kernel in kernels)]
    return cls is not nn.Linear or all(kernel.shape[1] == c for kernel, c in zip(kernels, channels, strict=False))


def own_class(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer without the one that torch.nn.utils.parametrize adds."""
    return type(layer).__bases__[0] if "parametrizations" in layer._modules else type(layer)


def is_bare(layer: nn.Module) -> bool:
    """Whether a chain would lose nothing: no hooks, and no parametrization but the weight's."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return not any(hooks) and set(getattr(layer, "parametrizations", ())) <= {"weight"}


def is_chainable(layer: nn.Module) -> bool:
    """Whether a chain may take the place of the layer, derived or not, if its scheme has one."""
    return is_bare(layer) and is_plain(own_class(layer), getattr(layer, "groups", 1))


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
