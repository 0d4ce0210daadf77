"""The sums of two tensors that a net computes, such as those that end residual branches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from ..routing import routers

_SUMS = frozenset({torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__})

See = Callable[[int, Tensor, Tensor], None]


class _Depth(threading.local):
    """How many layers the forward pass of this thread is inside of."""

    value = 0

    def enter(self, *_: object) -> None:
        self.value += 1

    def leave(self, *_: object) -> None:
        self.value -= 1


@contextmanager
def marking_layers(model: nn.Module) -> Iterator[_Depth]:
    """Count the depth of nested layers, for `SumWatcher`. Any number of threads can run the model in the block."""
    depth = _Depth()
    kernels = (layer for layer in model.modules() if isinstance(layer, (_ConvNd, nn.Linear)))
    layers = {*kernels, *map(model.get_submodule, routers(model))}
    handles = [layer.register_forward_pre_hook(depth.enter) for layer in layers]
    handles += [layer.register_forward_hook(depth.leave) for layer in layers]
    try:
        yield depth
    finally:
        for handle in handles:
            handle.remove()


class SumWatcher(TorchFunctionMode):
    """Calls `see(place, left, right)` before every sum of two tensors of one shape; `place` counts from 0.

    Sums inside a layer, in the computation of its kernel or in its router, do not count: a converted module has the
    same sums as its original, in the same order. A mode holds for the thread that enters it.
    """

    def __init__(self, depth: _Depth, see: See) -> None:
        super().__init__()
        self.depth, self.see, self.count = depth, see, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.depth.value and func in _SUMS and len(args) == 2 and _alike(*args):
            self.see(self.count, *args)
            self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def watching_sums(model: nn.Module, see: See) -> Iterator[None]:
    """Call `see` before every sum of one forward pass inside the block."""
    with marking_layers(model) as depth, SumWatcher(depth, see):
        yield


def _alike(left: object, right: object) -> bool:
    return isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape and left.ndim > 1
