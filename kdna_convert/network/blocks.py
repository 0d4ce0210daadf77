"""The blocks of a net: modules that run one after the other, each a function of one tensor, and the layers in them.

They are derived from one forward pass, so that this works for any net. A module whose children pass one tensor from its
input to its output is split into its children; so is a module that holds most of the layers. The rest are blocks:
residual blocks, Fire modules, dense blocks, single layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .trace import Call, RunLayer, run_layers, trace


@dataclass(frozen=True)
class Block:
    """A module that takes one tensor and runs once.

    Attributes:
        name: Its name in the net.
        layers: Its layers, in the order in which they run.
        follows: Whether its input is the output of the block before it.
        whole: Whether its output is one tensor.
    """

    name: str
    layers: tuple[RunLayer, ...]
    follows: bool
    whole: bool


def find_blocks(model: nn.Module, layers: Sequence[str], example: Tensor) -> tuple[Block, ...]:
    """The blocks of a net in the order in which they run.

    Args:
        model: The net.
        layers: The names of the layers to cover. Those that run more than once, or not at all, are in no block.
        example: A batch of inputs.

    Returns:
        The blocks up to the last with such a layer, without those whose output no such layer depends on.
    """
    traced = trace(model, example)
    calls, inside = traced.calls, run_layers(model, traced, layers)
    row = _row("", calls, {layer.name for layer in inside})
    blocks: list[Block] = []
    for place, name in enumerate(row):
        call, before = calls[name], calls[row[place - 1]] if place else None
        own = tuple(layer for layer in inside if _within(layer.name, name))
        follows = before is not None and before.gives is not None and before.gives == call.takes
        blocks.append(Block(name, own, follows, call.gives is not None))
    return _needed(blocks)


def _row(name: str, calls: Mapping[str, Call], layers: set[str]) -> list[str]:
    """The blocks that a module consists of, or the module itself."""
    inside = {layer for layer in layers if _within(layer, name)}
    kids = _children(name, calls)
    if name in layers or not inside or not kids:
        return [name]
    passes = [calls[name].takes, *(calls[kid].gives for kid in kids)]
    takes = [*(calls[kid].takes for kid in kids), calls[name].gives]
    row = all(a is not None and a == b for a, b in zip(passes, takes, strict=True))
    trunk = 2 * len(inside) > len(layers)
    needed = [kid for kid in kids if any(_within(layer, kid) for layer in inside)]
    if not (row or trunk) or not all(calls[kid].single for kid in needed):
        return [name]
    parts = [kid for kid in kids if calls[kid].single]
    return [block for kid in parts for block in _row(kid, calls, layers)]


def _children(name: str, calls: Mapping[str, Call]) -> list[str]:
    """The modules that ran directly inside this one."""
    below = [other for other in calls if other != name and _within(other, name)]
    direct: list[str] = []
    for other in sorted(below, key=lambda path: path.count(".")):
        if not any(_within(other, kid) for kid in direct):
            direct.append(other)
    return [other for other in calls if other in set(direct)]


def _within(name: str, outer: str) -> bool:
    return not outer or name == outer or name.startswith(f"{outer}.")


def _needed(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Without the blocks that no layer depends on."""
    kept: list[Block] = []
    for block in reversed(blocks):
        if block.layers or (kept and kept[-1].follows):
            kept.append(block)
    return tuple(reversed(kept))
