"""Forward passes of a net on many batches, all suspended at the same places.

Each pass runs in a thread of its own. `Passes.advance` lets all of them run to the next place, as many side by side as
there are cores, and returns when all of them wait there. So a layer can be changed after its inputs for all images are
known and before any of its outputs is used, and the whole net takes one forward pass per image, whatever its shape.

The threads share the modules of the net. A net that stores activations in its modules would mix up the batches;
`interleaves` tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core.modes import eval_mode
from .inference import device_of, evaluating
from .sums import SumWatcher, marking_layers
from .trace import RunLayer

_here = threading.local()  # the pass that runs in this thread


class _Stopped(BaseException):
    pass


class Passes:
    """The forward passes of one net, on one batch each. A context manager.

    A pass waits before each layer in `places` and holds its input; with `outputs` it waits behind it and holds its
    output. For a layer that ends a branch it waits at the sum of the branches. If it has held the input, it then
    computes the layer again, which may have changed.

    Attributes:
        model: The net.
        passes: The passes that have begun, in the order of their batches.
    """

    def __init__(self, model: nn.Module, places: Sequence[RunLayer], slots: threading.Semaphore, *, outputs: bool):
        self.model, self.places, self.slots, self.outputs = model, places, slots, outputs
        self.passes: list[Pass] = []
        self.number = {place.name: number for number, place in enumerate(places)}
        self.at_sum: dict[int, list[int]] = {}
        for number, place in enumerate(places):
            if place.sum is not None:
                self.at_sum.setdefault(place.sum, []).append(number)
        self._stack = ExitStack()

    def __enter__(self) -> Passes:
        self._stack.enter_context(eval_mode(self.model))
        self.depth = self._stack.enter_context(marking_layers(self.model))
        for place in self.places:
            module = self.model.get_submodule(place.name)
            register = module.register_forward_hook if self.outputs else module.register_forward_pre_hook
            self._stack.callback(register(self._hook(place.name)).remove)
        self._stack.callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, batch: Tensor, first: int, threads: int) -> None:
        """Add a pass. It waits at `first` and the places after it, and uses so many threads for each operation."""
        self.passes.append(Pass(self, batch.to(device_of(self.model)), first, threads))

    def advance(self, number: int, *others: Passes) -> None:
        """Let the passes, also those of other nets, run to place `number`, or past it if they do not come there."""
        running = [own for net in (self, *others) for own in net.passes if own.at < number]
        for own in running:
            own.resume()
        for own in running:
            own.wait()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any = None) -> None:
            own: Pass | None = getattr(_here, "own", None)
            if own is not None and own.of is self:
                own.see_layer(name, output if self.outputs else args[0])

        return hook

    def _end(self) -> None:
        for own in self.passes:
            own.stop()


class Pass(threading.Thread):
    """A forward pass on one batch, and what it holds at its place.

    Attributes:
        kept: The input, or output, of layers whose place it has not left, by name.
        terms: The terms of the sum that it waits at.
        at: The number of the place that it waits at: -1 before the first, the number of places when it has ended.
        result: What the net returned.
    """

    def __init__(self, of: Passes, batch: Tensor, first: int, threads: int) -> None:
        super().__init__(daemon=True)
        self.of, self.batch, self.first, self.threads = of, batch, first, threads
        self.kept: dict[str, Any] = {}
        self.terms: tuple[Tensor, Tensor] | None = None
        self.renewing, self.at = False, -1
        self.result: Any = None
        self._error: BaseException | None = None
        self._stopping = False
        self._resumed, self._waits = threading.Semaphore(0), threading.Semaphore(0)

    def resume(self) -> None:
        """Run to the next place, in the thread of the pass."""
        if self.ident is None:
            self.start()
        else:
            self._resumed.release()

    def wait(self) -> None:
        """Return when the pass waits at its next place or has ended; raise what it raised."""
        self._waits.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the pass where it is."""
        self._stopping = True
        self._resumed.release()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        _here.own = self
        try:
            with self.of.slots:
                torch.set_num_threads(self.threads)
                with torch.no_grad(), SumWatcher(self.of.depth, self._see_sum):
                    self.result = self.of.model(self.batch)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        finally:
            self.at = len(self.of.places)
            self.kept, self.terms = {}, None
            self._waits.release()

    def _suspend(self, number: int) -> None:
        """Wait at a place. Another pass takes the slot."""
        self.at = number
        self.of.slots.release()
        self._waits.release()
        self._resumed.acquire()
        self.of.slots.acquire()
        if self._stopping:
            raise _Stopped

    def see_layer(self, name: str, value: Any) -> None:
        """A layer is reached, or has run: hold its input or output."""
        number = self.of.number[name]
        if self.renewing or number < self.first:
            return
        if self.of.places[number].sum is not None:
            self.kept[name] = value.clone()  # the net may change it before the sum
            return
        self.kept[name] = value
        self._suspend(number)
        del self.kept[name]

    def _see_sum(self, count: int, left: Tensor, right: Tensor) -> None:
        for number in self.of.at_sum.get(count, ()):
            place = self.of.places[number]
            if place.name not in self.kept:
                continue
            self.terms = (left, right)
            self._suspend(number)
            self.terms, value = None, self.kept.pop(place.name)
            if not self.of.outputs:
                self._renew(place, value, right if place.skip == 0 else left)

    def _renew(self, place: RunLayer, x: Tensor, branch: Tensor) -> None:
        """Compute the term that the layer's branch gives the sum again: the layer has changed since."""
        self.renewing = True
        try:
            y = self.of.model.get_submodule(place.name)(x)
            branch.copy_(y if place.norm is None else self.of.model.get_submodule(place.norm)(y))
        finally:
            self.renewing = False


def interleaves(model: nn.Module, places: Sequence[RunLayer], batch: Tensor) -> bool:
    """Whether two passes that take turns compute what each computes alone. True for a batch of one."""
    if len(batch) < 2:
        return True
    parts = [part.to(device_of(model)) for part in (batch[:1], batch[1:2])]
    with evaluating(model):
        expected = [tree_leaves(model(part)) for part in parts]
    with Passes(model, places, threading.Semaphore(), outputs=True) as both:
        for part in parts:
            both.begin(part, 0, torch.get_num_threads())
        for number in range(len(places) + 1):
            both.advance(number)
        outputs = [tree_leaves(own.result) for own in both.passes]
    return all(
        not isinstance(one, Tensor) or torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
        for ours, theirs in zip(outputs, expected, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    )
