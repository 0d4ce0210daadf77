"""What one forward pass shows of a net: the calls of its modules, its sums, and the memory that it holds."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .batch_norm import is_batch_norm
from .inference import device_of, evaluating
from .sums import watching_sums


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor and its version: an in-place operation makes another value. The reference keeps `is` valid."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, something: object) -> Value | None:
        if not isinstance(something, Tensor) or something.is_inference():  # inference mode keeps no versions
            return None
        return cls(something, something._version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.tensor is other.tensor and self.version == other.version


@dataclass
class Call:
    """One run of a module: its input and output, where these are single tensors.

    Attributes:
        takes: The input.
        began: The number of sums before it began.
        gives: The output.
        times: How often the module ran.
    """

    takes: Value | None
    began: int
    gives: Value | None = None
    times: int = 1

    @property
    def single(self) -> bool:
        """Whether the module ran once, on one tensor."""
        return self.times == 1 and self.takes is not None


@dataclass(frozen=True)
class Trace:
    """One forward pass: the `calls` by module name, in the order of their starts, and the terms of every sum.

    `uses` counts the operations that take a tensor, by its identity and version.
    """

    calls: Mapping[str, Call]
    sums: Sequence[tuple[Value | None, Value | None]]
    uses: Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class RunLayer:
    """A layer that runs once, on one tensor.

    Attributes:
        name: Its name in the net.
        norm: The name of the batch normalization that takes its output, None without one.
        sum: The number of the sum that ends its branch, counted over the net; None without one. Nothing else takes
            what the branch gives.
        skip: Which term of that sum is the skip path, 0 or 1.
        began: The number of sums before it ran.
    """

    name: str
    norm: str | None = None
    sum: int | None = None
    skip: int = 0
    began: int = 0


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run the net on the example, in eval mode, and record the pass."""
    calls: dict[str, Call] = {}
    sums: list[tuple[Value | None, Value | None]] = []

    def starts(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if name in calls:
                calls[name].times += 1
                return
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor | list | tuple)]
            only = tensors[0] if len(tensors) == 1 and args else None
            calls[name] = Call(Value.of(only), began=len(sums))

        return hook

    def ends(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[name].gives = Value.of(output)

        return hook

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(starts(name), with_kwargs=True))
        handles.append(module.register_forward_hook(ends(name)))
    try:
        with (
            evaluating(model),
            watching_sums(model, lambda _, *terms: sums.append((Value.of(terms[0]), Value.of(terms[1])))),
            _Uses() as uses,
        ):
            model(example.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return Trace(calls, sums, uses.count)


def run_layers(model: nn.Module, traced: Trace, names: Sequence[str]) -> tuple[RunLayer, ...]:
    """Those of these layers that ran once, on one tensor, in the order in which they ran."""
    wanted = set(names)
    return tuple(
        _run_layer(model, name, traced) for name, call in traced.calls.items() if name in wanted and call.single
    )


def _run_layer(model: nn.Module, name: str, traced: Trace) -> RunLayer:
    """The layer with the batch normalization and the sum that take its output."""
    call = traced.calls[name]
    takers = (taker for taker, other in traced.calls.items() if other.takes == call.gives and other.single)
    norm = next((taker for taker in takers if is_batch_norm(model.get_submodule(taker))), None)
    reached = call.gives if norm is None else traced.calls[norm].gives
    for place, (left, right) in enumerate(traced.sums[call.began :], start=call.began):
        if (left == reached) != (right == reached) and traced.uses.get(_key(reached), 0) == 1:
            return RunLayer(name, norm, place, int(left == reached), call.began)
    return RunLayer(name, norm, began=call.began)


def held_bytes(model: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, int]:
    """The bytes that a forward pass holds when each of these modules has run, without the example."""
    with evaluating(model):
        return _held_by(model, names, example)


def peak_bytes(model: nn.Module, example: Tensor) -> int:
    """The most bytes that a forward pass of a net in eval mode holds when a module has run, without the example."""
    names = [name for name, module in model.named_modules() if not name or not any(module.children())]
    return max(_held_by(model, names, example).values(), default=0)


def _held_by(model: nn.Module, names: Sequence[str], example: Tensor) -> dict[str, int]:
    memory, held = _HeldMemory(model, example), dict[str, int]()

    def see(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            held[name] = max(memory.held(), held.get(name, 0))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(see(name)) for name in names]
    try:
        with memory:
            model(example.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return held


class _Uses(TorchFunctionMode):
    """Counts the operations that take each tensor and compute another, by the tensor's identity and version."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[tuple[int, int]] = Counter()
        self._alive: list[Tensor] = []  # an identity is unique only while the tensor lives

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [value for leaf in tree_leaves((args, kwargs)) if (value := Value.of(leaf)) is not None]
        output = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        new = any(all(one is not value.tensor for value in taken) for one in given)
        if new or any(value.tensor._version != value.version for value in taken):
            self.count.update({_key(value) for value in taken})
            self._alive += [value.tensor for value in taken]
        return output


def _key(value: Value | None) -> tuple[int, int]:
    return (0, 0) if value is None else (id(value.tensor), value.version)


class _HeldMemory(TorchFunctionMode):
    """Counts the bytes of the tensors that a forward pass has computed and still holds."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        given = (example, *model.parameters(), *model.buffers())
        self._given = {tensor.untyped_storage().data_ptr() for tensor in given if _is_plain(tensor)}
        self._tensors: list[weakref.ref[Tensor]] = []

    def held(self) -> int:
        alive = [(ref, tensor) for ref in self._tensors if (tensor := ref()) is not None]
        self._tensors = [ref for ref, _ in alive]
        sizes = {storage.data_ptr(): storage.nbytes() for _, tensor in alive for storage in (tensor.untyped_storage(),)}
        return sum(size for place, size in sizes.items() if place not in self._given)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor) and _is_plain(tensor):
                self._tensors.append(weakref.ref(tensor))
        return output


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor has a storage of its own."""
    return type(tensor.data) is Tensor and tensor.layout == torch.strided
