"""How a net falls into blocks: modules run one after the other, each a function of one tensor, and what is inside them.

Found by watching one forward pass, so that it holds for any net. A module whose children pass one tensor along, from
its own input to its own output, is no block but a row of them; so is a trunk, a module that holds most of the layers.
What is left are the residual blocks, Fire modules, dense blocks and single layers that a net is made of.
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
from .inference import device_of, evaluating
from .norms import is_batch_norm

_SUMS = frozenset({torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__})


@dataclass(frozen=True)
class BlockLayer:
    """A layer inside a block. `norm` is the batch normalisation that takes its output, None where there is none.

    `sum` is the place, among the sums of the block, of the one that this branch ends in, None where it ends in none;
    `skip` says which of its terms is the skip path, 0 or 1.
    """

    name: str
    norm: str | None = None
    sum: int | None = None
    skip: int = 0


@dataclass(frozen=True)
class Block:
    """A module that takes one tensor, once. `layers` are in the order in which they run.

    `follows`: its input is the output of the block before it in the row. `whole`: its output is one tensor.
    """

    name: str
    layers: tuple[BlockLayer, ...]
    follows: bool
    whole: bool


@dataclass(frozen=True, eq=False)
class _Value:
    """A tensor as it was at one time: an operation in place makes another value of it. Held, so that `is` is sound."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, something: object) -> _Value | None:
        return cls(something, something._version) if isinstance(something, Tensor) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self.tensor is other.tensor and self.version == other.version


@dataclass
class _Call:
    """One module's run: what it took and gave, where these are single tensors."""

    takes: _Value | None
    gives: _Value | None = None
    sums: tuple[int, int] = (0, 0)  # those made before it began and before it ended
    times: int = 1


_Sum = tuple[_Value | None, ...]


def find_blocks(model: nn.Module, layers: Sequence[str], example: Tensor) -> tuple[Block, ...]:
    """The blocks of a net in the order in which they run, from the first that is needed to the last with a layer.

    `layers` names the layers that are wanted; those that run more than once, or not at all, are in no block.
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
    """Call `see(place, left, right)` before every sum of two tensors of one shape; places count from 0.

    Sums inside a layer, of its kernel's parts or its router's, are none of the module's: a converted module has the
    same sums at the same places as its original.
    """
    sums = _Sums(see)
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


class _Sums(TorchFunctionMode):
    def __init__(self, see: Callable[[int, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.see, self.count = see, 0
        self.inside = 0  # so many layers, one in the other

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


def _row(name: str, calls: Mapping[str, _Call], wanted: set[str]) -> list[str]:
    """The blocks that a module is a row of, or the module itself."""
    inside = {layer for layer in wanted if _within(layer, name)}
    kids = _children(name, calls)
    if name in wanted or not inside or not kids:
        return [name]
    passes = [calls[name].takes, *(calls[kid].gives for kid in kids)]
    takes = [*(calls[kid].takes for kid in kids), calls[name].gives]
    row = all(a is not None and a == b for a, b in zip(passes, takes, strict=True))
    trunk = 2 * len(inside) > len(wanted)
    needed = [kid for kid in kids if any(_within(layer, kid) for layer in inside)]
    if not (row or trunk) or not all(_single(calls[kid]) for kid in needed):
        return [name]
    parts = [kid for kid in kids if _single(calls[kid])]
    return [block for kid in parts for block in _row(kid, calls, wanted)]


def _children(name: str, calls: Mapping[str, _Call]) -> list[str]:
    """The modules that ran inside this one and inside no other that did."""
    below = [other for other in calls if other != name and _within(other, name)]
    found: list[str] = []
    for other in sorted(below, key=lambda path: path.count(".")):
        if not any(_within(other, kid) for kid in found):
            found.append(other)
    return [other for other in calls if other in set(found)]


def _within(name: str, outer: str) -> bool:
    return not outer or name == outer or name.startswith(f"{outer}.")


def _block_layer(model: nn.Module, layer: str, calls: Mapping[str, _Call], sums: Sequence[_Sum]) -> BlockLayer:
    """What takes the layer's output: perhaps a batch normalisation, then perhaps one of the block's sums."""
    ended = calls[layer].gives
    takers = (name for name, call in calls.items() if call.takes == ended and _single(call))
    norm = next((name for name in takers if is_batch_norm(model.get_submodule(name))), None)
    reached = ended if norm is None else calls[norm].gives
    for place, (left, right) in enumerate(sums):
        if (left == reached) != (right == reached):
            return BlockLayer(layer, norm, place, skip=int(left == reached))
    return BlockLayer(layer, norm)


def _needed(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Without those from which no wanted layer is reached."""
    kept: list[Block] = []
    for block in reversed(blocks):
        if block.layers or (kept and kept[-1].follows):
            kept.append(block)
    return tuple(reversed(kept))
