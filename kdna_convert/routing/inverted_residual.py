"""Find the inverted-residual blocks of a net: [expand 1x1, norm, act], depthwise, norm, act, [gate], project 1x1.

Blocks are found by the kinds of layers inside one module, not by class names. This covers the MobileNets and
EfficientNets of timm, of torchvision and of users: a depthwise convolution followed by a pointwise one of its channels,
with an activation between. A module with several convolutions (a squeeze-and-excitation) is skipped. The order is that
of definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from torch import nn

from .supported import is_exact

# torch's and timm's.
ACTIVATIONS = frozenset(
    {"ReLU", "ReLU6", "LeakyReLU", "ELU", "SiLU", "Swish", "Mish", "GELU", "GELUTanh", "Hardswish", "HardSwish"}
)


@dataclass(frozen=True)
class BlockParts:
    """The names of a block's modules, in the order in which they run. A depthwise-separable block has no `expand`."""

    expand: str | None
    depthwise: str
    activation: str
    project: str

    @property
    def pointwise(self) -> tuple[str, ...]:
        """The pointwise convolutions, in the order in which they run."""
        return (self.project,) if self.expand is None else (self.expand, self.project)


def inverted_residuals(model: nn.Module) -> list[BlockParts]:
    """Every block of a model, in module order. Blocks with a module of two names are skipped."""
    names = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    blocks: list[BlockParts] = []
    for name, module in model.named_modules():
        if _is_depthwise(module):
            block = _around(model, name, {block.project for block in blocks})
            if block is not None and all(names[id(model.get_submodule(part))] == 1 for part in _parts(block)):
                blocks.append(block)
    return blocks


def _parts(block: BlockParts) -> tuple[str, ...]:
    return (block.depthwise, block.activation, *block.pointwise)


def _around(model: nn.Module, depthwise: str, taken: Set[str]) -> BlockParts | None:
    """The block of the innermost module that contains a complete one around this layer."""
    parent = depthwise
    while parent:
        parent = parent.rpartition(".")[0]
        block = _within(model, parent, depthwise, taken)
        if block is not None:
            return block
    return None


def _within(model: nn.Module, parent: str, depthwise: str, taken: Set[str]) -> BlockParts | None:
    prefix = f"{parent}." if parent else ""
    convs: list[str] = []
    activations: list[str] = []
    for child, module in model.get_submodule(parent).named_children():
        parts = [(f"{prefix}{child}.{inner}".rstrip("."), part) for inner, part in module.named_modules()]
        own = [name for name, part in parts if isinstance(part, nn.Conv2d)]
        if len(own) > 1:
            continue
        convs += own
        if depthwise in convs and len(convs) - convs.index(depthwise) == 1:
            activations += [name for name, part in parts if type(part).__name__ in ACTIVATIONS]
    if depthwise not in convs[:-1] or not activations:
        return None
    place = convs.index(depthwise)
    channels: Any = model.get_submodule(depthwise).out_channels
    before, after = convs[place - 1] if place else None, convs[place + 1]
    if not _is_pointwise(model.get_submodule(after), inputs=channels):
        return None
    if before in taken or before is None or not _is_pointwise(model.get_submodule(before), outputs=channels):
        before = None
    return BlockParts(before, depthwise, activations[0], after)


def _is_depthwise(module: Any) -> bool:
    plain = isinstance(module, nn.Conv2d) and is_exact(type(module).__name__)
    return plain and module.groups == module.in_channels == module.out_channels > 1


def _is_pointwise(module: Any, inputs: int | None = None, outputs: int | None = None) -> bool:
    plain = is_exact(type(module).__name__) and module.kernel_size == (1, 1) and module.groups == 1
    return plain and inputs in (None, module.in_channels) and outputs in (None, module.out_channels)
