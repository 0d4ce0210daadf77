"""The blocks of a net: modules that run one after the other, each a function of one tensor, and the layers in them.

They are derived from one forward pass, so that this works for any net. A module whose children pass one tensor from its
input to its output is split into its children; so is a module that holds most of the layers. The rest are blocks:
residual blocks, Fire modules, dense blocks, single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from ..routing import routers
from .batch_norm import is_batch_norm
from .inference import device_of, evaluating

_SUMS = frozenset({torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__})


@dataclass(frozen=True)
class BlockLayer:
    """A layer inside a block.

    Attributes:
        name: Its name in the net.
        norm: The name of the batch normalization that takes its output, None without one.
        sum: The position, among the sums of the block, of the sum that ends this branch, None without one.
        skip: Which term of that sum is the skip path, 0 or 1.
    """

    name: str
    norm: str | None = None
    sum: int | None = None
    skip: int = 0


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
    layers: tuple[BlockLayer, ...]
    follows: bool
    whole: bool


@dataclass(frozen=True, eq=False)
class _Value:
    """A tensor and its version: an in-place operation makes another value. The reference keeps `is` valid."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, something: object) -> _Value | None:
        if not isinstance(something, Tensor) or something.is_inference():  # inference mode keeps no versions
            return None
        return cls(something, something._version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self.tensor is other.tensor and self.version == other.version


@dataclass
class _Call:
    """One run of a module: its input and output, where these are single tensors."""

    takes: _Value | None
    gives: _Value | None = None
    sums: tuple[int, int] = (0, 0)  # the numbers of sums before it began and before it ended
    times: int = 1


_Sum = tuple[_Value | None, ...]


def find_blocks(model: nn.Module, layers: Sequence[str], example: Tensor) -> tuple[Block, ...]:
    """The blocks of a net in the order in which they run.

    Args:
        model: The net.
        layers: The names of the layers to cover. Those that run more than once, or not at all, are in no block.
        example: A batch of inputs.

    Returns:
        The blocks up to the last with such a layer, without those whose output no such layer depends on.
    """
    calls, sums = _trace(model, example)
    names = [name for name in calls if name in set(layers) and _single(calls[name])]
    row = _row("", calls, set(names))
    blocks: list[Block] = []
    for place, name in enumerate(row):
        call = calls[name]
        before = calls[row[place - 1]] if place else None
        inside = tuple(
            _block_layer(model, layer, calls, sums[slice(*call.sums)]) for layer in names if _within(layer, name)
        )
        follows = before is not None and before.gives is not None and before.gives == call.takes
        blocks.append(Block(name, inside, follows, call.gives is not None))
    return _needed(blocks)


@contextmanager
def watching_sums(module: nn.Module, see: Callable[[int, Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see(place, left, right)` before every sum of two tensors of one shape; `place` counts from 0.

    Sums inside a layer, in the computation of its kernel or in its router, do not count: a converted module has the
    same sums as its original, in the same order.
    """
    sums = _SumWatcher(see)
    kernels = (layer for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear)))
    layers = {*kernels, *map(module.get_submodule, routers(module))}
    handles = [layer.register_forward_pre_hook(sums.enter) for layer in layers]
    handles += [layer.register_forward_hook(sums.leave) for layer in layers]
    try:
        with sums:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _SumWatcher(TorchFunctionMode):
    def __init__(self, see: Callable[[int, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.see, self.count = see, 0
        self.inside = 0  # the depth of nested layers

    def enter(self, *_: object) -> None:
        self.inside += 1

    def leave(self, *_: object) -> None:
        self.inside -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside and func in _SUMS and len(args) == 2 and _alike(*args):
            self.see(self.count, *args)
            self.count += 1
        return func(*args, **(kwargs or {}))


def _alike(left: object, right: object) -> bool:
    return isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape and left.ndim > 1


def _trace(model: nn.Module, example: Tensor) -> tuple[dict[str, _Call], list[_Sum]]:
    """Every module that ran, in the order of their starts, and every sum."""
    calls: dict[str, _Call] = {}
    sums: list[_Sum] = []

    def starts(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name in calls:
                calls[name].times += 1
                return
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor | list | tuple)]
            only = tensors[0] if len(tensors) == 1 and args else None
            calls[name] = _Call(_Value.of(only), sums=(len(sums), len(sums)))

        return hook

    def ends(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[name].gives = _Value.of(output)
            calls[name].sums = calls[name].sums[0], len(sums)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(starts(name), with_kwargs=True))
        handles.append(module.register_forward_hook(ends(name)))
    try:
        with (
            evaluating(model),
            watching_sums(model, lambda _, *terms: sums.append((_Value.of(terms[0]), _Value.of(terms[1])))),
        ):
            model(example.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return calls, sums


def _single(call: _Call) -> bool:
    return call.times == 1 and call.takes is not None


def _row(name: str, calls: Mapping[str, _Call], layers: set[str]) -> list[str]:
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
    if not (row or trunk) or not all(_single(calls[kid]) for kid in needed):
        return [name]
    parts = [kid for kid in kids if _single(calls[kid])]
    return [block for kid in parts for block in _row(kid, calls, layers)]


def _children(name: str, calls: Mapping[str, _Call]) -> list[str]:
    """The modules that ran directly inside this one."""
    below = [other for other in calls if other != name and _within(other, name)]
    direct: list[str] = []
    for other in sorted(below, key=lambda path: path.count(".")):
        if not any(_within(other, kid) for kid in direct):
            direct.append(other)
    return [other for other in calls if other in set(direct)]


def _within(name: str, outer: str) -> bool:
    return not outer or name == outer or name.startswith(f"{outer}.")


def _block_layer(model: nn.Module, layer: str, calls: Mapping[str, _Call], sums: Sequence[_Sum]) -> BlockLayer:
    """The layer with the batch normalization and the sum that take its output."""
    ended = calls[layer].gives
    takers = (name for name, call in calls.items() if call.takes == ended and _single(call))
    norm = next((name for name in takers if is_batch_norm(model.get_submodule(name))), None)
    reached = ended if norm is None else calls[norm].gives
    for place, (left, right) in enumerate(sums):
        if (left == reached) != (right == reached):
            return BlockLayer(layer, norm, place, skip=int(left == reached))
    return BlockLayer(layer, norm)


def _needed(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Without the blocks that no layer depends on."""
    kept: list[Block] = []
    for block in reversed(blocks):
        if block.layers or (kept and kept[-1].follows):
            kept.append(block)
    return tuple(reversed(kept))
