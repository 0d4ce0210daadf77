"""The activations that are alive at each step of a forward pass, from their first to their last use.

Python's references would hold an activation longer than a runtime does: an argument lives as long as its call. Here an
activation ends with the last operation that reads it. # Note [In place]: an elementwise operation writes over an input
that nothing reads afterwards, as runtimes do and as folded normalizations and activation functions need no buffer at
all. Views share the buffer of what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .inference import device_of, evaluating

# Operations that need no second buffer, beside those that torch marks as elementwise.
_IN_PLACE = (
    *("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_batch_norm_no_update"),
    *("native_layer_norm", "native_group_norm", "_softmax", "clone", "_to_copy", "copy"),
)


@dataclass(frozen=True)
class LiveStep:
    """One step of a forward pass of one image. Sizes are counts of numbers.

    Attributes:
        name: The layer, or the operation between layers.
        layer: Whether it is a layer.
        takes: What it reads.
        gives: What it writes.
        beside: What else is alive.
        keeps: The part of `takes` that a later step reads again.
    """

    name: str
    layer: bool
    takes: int
    gives: int
    beside: int
    keeps: int

    @property
    def alive(self) -> int:
        return self.takes + self.gives + self.beside


def live_steps(model: nn.Module, example: Tensor, layers: Collection[str]) -> tuple[LiveStep, ...]:
    """The steps of a forward pass, in order. A layer that runs twice has two steps.

    Args:
        model: The net.
        example: A batch, of which the first image is used.
        layers: The names of the modules that are one step each. What they compute inside is not counted.
    """
    image = example[:1].to(device_of(model)).clone()
    recorder = _Recorder([*model.parameters(), *model.buffers()], image)
    handles = []
    for name in layers:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(recorder.enter(name)))
        handles.append(module.register_forward_hook(recorder.leave))
    try:
        with evaluating(model), recorder:
            output = model(image)
    finally:
        for handle in handles:
            handle.remove()
    recorder.finish(output)
    return _steps(recorder)


@dataclass
class _Operation:
    """What one step reads and writes, by buffer. `call` is the number of the layer's call, None outside of layers."""

    name: str
    call: int | None
    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    in_place: bool = False


class _Recorder(TorchDispatchMode):
    """Records the operations on activations. What does not depend on the image is a constant, and is not counted."""

    def __init__(self, given: Sequence[Tensor], image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []
        self.sizes: dict[int, int] = {}
        self.output: set[int] = set()
        self._buffers: dict[int, int] = {}
        self._given = {_place(tensor) for tensor in given}
        self._alive: list[Tensor] = [image]  # a place is unique only while its tensor lives
        self._inside: list[tuple[str, int]] = []
        self._calls = 0
        self._new(image)

    def enter(self, name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self._calls += 1
            self._inside.append((name, self._calls))

        return hook

    def leave(self, *_: object) -> None:
        self._inside.pop()

    def finish(self, output: object) -> None:
        self.output = {buffer for leaf in tree_leaves(output) if (buffer := self._buffer(leaf)) is not None}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = {buffer for leaf in tree_leaves((args, kwargs)) if (buffer := self._buffer(leaf)) is not None}
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.numel()]
        self._alive += given
        if not reads:
            return result
        known = {buffer for leaf in given if (buffer := self._buffer(leaf)) is not None}
        fresh = [leaf for leaf in given if self._buffer(leaf) is None and leaf.is_floating_point()]
        if not fresh and not func._schema.is_mutable:
            return result  # a view, or indices
        name, call = self._inside[-1] if self._inside else (func._schema.name.removeprefix("aten::").strip("_"), None)
        elementwise = torch.Tag.pointwise in func.tags or name in _IN_PLACE or func.overloadpacket.__name__ in _IN_PLACE
        writes = {self._new(leaf) for leaf in fresh} | (known if func._schema.is_mutable else set())
        self.operations.append(_Operation(name, call, reads, writes, elementwise))
        return result

    def _new(self, tensor: Tensor) -> int:
        number = len(self.sizes)
        self._buffers[_place(tensor)] = number
        self.sizes[number] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return number

    def _buffer(self, leaf: object) -> int | None:
        if not isinstance(leaf, Tensor) or not leaf.numel() or _place(leaf) in self._given:
            return None
        return self._buffers.get(_place(leaf))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _steps(recorder: _Recorder) -> tuple[LiveStep, ...]:
    operations = _merged(recorder.operations)
    shared = _shared_buffers(operations, recorder)
    for operation in operations:
        operation.reads = {shared[buffer] for buffer in operation.reads}
        operation.writes = {shared[buffer] for buffer in operation.writes} - operation.reads
    born: dict[int, int] = {shared[0]: 0}
    dead: dict[int, int] = {}
    for place, operation in enumerate(operations):
        for buffer in operation.reads | operation.writes:
            born.setdefault(buffer, place)
            dead[buffer] = place
    dead |= {shared[buffer]: len(operations) for buffer in recorder.output}
    sizes = recorder.sizes

    def total(buffers: set[int]) -> int:
        return sum(sizes[buffer] for buffer in buffers)

    steps = []
    for place, operation in enumerate(operations):
        own = operation.reads | operation.writes
        others = {buffer for buffer in dead if born[buffer] <= place <= dead[buffer]} - own
        kept = {buffer for buffer in operation.reads if dead[buffer] > place}
        layer = operation.call is not None
        sizes_of = (total(operation.reads), total(operation.writes), total(others), total(kept))
        steps.append(LiveStep(operation.name, layer, *sizes_of))
    return tuple(steps)


def _merged(operations: Sequence[_Operation]) -> list[_Operation]:
    """The operations of one call of a layer as one, without the buffers that only it uses."""
    merged: list[_Operation] = []
    for operation in operations:
        last = merged[-1] if merged else None
        if last is None or operation.call is None or last.call != operation.call:
            merged.append(_Operation(operation.name, operation.call, set(operation.reads), set(operation.writes)))
            merged[-1].in_place = operation.in_place and operation.call is None
            continue
        last.reads |= operation.reads - last.writes
        last.writes = operation.writes | {own for own in last.writes if own not in operation.reads}
    return merged


def _shared_buffers(operations: Sequence[_Operation], recorder: _Recorder) -> dict[int, int]:
    """For each buffer the one whose memory it uses. See Note [In place]."""
    last_read = {buffer: place for place, operation in enumerate(operations) for buffer in operation.reads}
    shared = {buffer: buffer for buffer in recorder.sizes}
    for place, operation in enumerate(operations):
        if not operation.in_place:
            continue
        for written in operation.writes - operation.reads:
            over = [
                read
                for read in sorted(operation.reads)
                if last_read[read] == place
                and recorder.sizes[read] == recorder.sizes[written]
                and read not in recorder.output
            ]
            if over:
                shared[written] = shared[over[0]]
    return shared
