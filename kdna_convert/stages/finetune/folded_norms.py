"""Frozen batch normalization inside the convolution before it, for as long as a fine-tune lasts.

With its statistics held, norm(conv(x)) is one convolution: kernel w g / s and bias b + (c - m) g / s, with s, m the
statistics, g, b the norm's own parameters and c the convolution's bias. The same function with the same gradients, but
the convolution's output is neither kept for the backward pass nor read again: on a ResNet a step takes a tenth less
time and little more than half of the memory. The net itself does not change; its tensors keep their names and places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...network.blocks import Block
from ...network.inference import evaluating
from ..evaluate.accuracy import first_output

Pair = tuple[str, str]
TOLERANCE = 1e-4  # of the largest answer: rounding of float32, many layers deep


def plain_convolutions(model: nn.Module) -> list[str]:
    """Layers that do nothing but torch's own 2d convolution, however their weight is made; no router runs them."""
    own = ((name, module) for name, module in model.named_modules() if "forward" not in vars(module))
    return [name for name, module in own if type(module).forward is nn.Conv2d.forward]


def norm_pairs(original: nn.Module, model: nn.Module, blocks: Sequence[Block], example: Tensor) -> tuple[Pair, ...]:
    """The convolutions of both nets and the norms that take their outputs; none where one is read elsewhere too."""
    plain = set(plain_convolutions(original)) & set(plain_convolutions(model))
    wanted = [(layer.name, layer.norm) for block in blocks for layer in block.layers if layer.name in plain]
    pairs = tuple((name, norm) for name, norm in wanted if norm is not None and _known(original.get_submodule(norm)))
    return pairs if all(_same(net, pairs, example) for net in (original, model)) else ()


@contextmanager
def folded_norms(model: nn.Module, pairs: Sequence[Pair]) -> Iterator[None]:
    """Run the model, in eval mode, with these norms inside their convolutions."""
    modules: list[tuple[Any, Any]] = [(model.get_submodule(conv), model.get_submodule(norm)) for conv, norm in pairs]
    try:
        for conv, norm in modules:
            conv.forward = partial(_convolve, conv, norm)
            norm.forward = partial(_rest, norm)
        yield
    finally:
        for module in (module for pair in modules for module in pair):
            module.__dict__.pop("forward", None)


def _convolve(conv: Any, norm: Any, x: Tensor) -> Tensor:
    # Not batch_norm.norm_affine: float32 and differentiable, since training runs through it.
    scale_o = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale_o = scale_o * norm.weight
    shift_o = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    bias_o = shift_o * scale_o if norm.bias is None else norm.bias + shift_o * scale_o
    output: Tensor = conv._conv_forward(x, conv.weight * scale_o[:, None, None, None], bias_o)
    return output


def _rest(norm: Any, x: Tensor) -> Tensor:
    """What timm's norm does after normalizing."""
    rest: Tensor = norm.act(norm.drop(x)) if _with_activation(norm) else x
    return rest


def _known(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm2d or _with_activation(norm)


def _with_activation(norm: nn.Module) -> bool:
    return type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm.")


def _same(model: nn.Module, pairs: Sequence[Pair], example: Tensor) -> bool:
    with evaluating(model):
        plain = first_output(model(example), len(example))
        with folded_norms(model, pairs):
            folded = first_output(model(example), len(example))
    return bool((folded - plain).abs().max() <= TOLERANCE * plain.abs().max().clamp_min(1e-30))
