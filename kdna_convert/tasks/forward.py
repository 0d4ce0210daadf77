"""Run a net and take the tensors that its task compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .task import Outputs, Task


def run(task: Task, net: nn.Module, inputs: Tensor, call: Callable[[Tensor], object] | None = None) -> Outputs:
    """The outputs of a net on a batch of inputs, those of the task's taps last. Differentiable.

    Args:
        task: The task.
        net: The net.
        inputs: Inputs (images, ...).
        call: What runs the net, where this is not the net itself, as its distributed form.

    Raises:
        ModelError: KD308 for outputs of another task.
    """
    with captured(net, task.taps(net)) as tapped:
        returned = (net if call is None else call)(inputs)
    returned = returned if task.pick is None else task.pick(returned)
    own = task.outputs(returned, len(inputs))
    inner = task.tapped(net, tapped)
    return own + tuple(tensor for tensor in inner if tensor.ndim > 1 and len(tensor) == len(inputs))


@contextmanager
def captured(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The outputs of these modules in the last run of the model inside the context."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            outputs[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
