"""A detector's box head reads the regions that its own net proposes. In a fine-tune both nets read the teacher's.

Then the rows of the heads' outputs match, and the heads are trained as the rest of the net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...network.inference import device_of
from ...tasks import Head, Outputs, captured, tensors_in
from ...tasks.relative_error import relative_loss


@contextmanager
def running_heads(net: nn.Module, heads: Sequence[Head], regions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the heads return in the net's last run inside the context.

    Args:
        net: The net.
        heads: Its heads.
        regions: The regions of each, by module. Those that are missing are added as the net proposes them; the others
            replace the net's own.
    """

    def sharing(head: Head) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            given = regions.setdefault(head.module, args[head.argument])
            return (*args[: head.argument], given, *args[head.argument + 1 :])

        return hook

    handles = [net.get_submodule(head.module).register_forward_pre_hook(sharing(head)) for head in heads]
    try:
        with captured(net, [head.output for head in heads]) as outputs:
            yield outputs
    finally:
        for handle in handles:
            handle.remove()


def head_outputs(outputs: dict[str, Any]) -> Outputs:
    """The tensors in what the heads returned, a row for each region."""
    return tuple(tensor for value in outputs.values() for tensor in tensors_in(value))


def head_loss(model: nn.Module, teacher: nn.Module, heads: Sequence[Head], inputs: Tensor) -> float:
    """The relative error of a net's heads on the regions that its teacher proposes for a batch."""
    found, regions = [], dict[str, Any]()
    for net in (teacher, model):
        with running_heads(net, heads, regions) as outputs:
            net(inputs.to(device_of(net)))
        found.append(head_outputs(outputs))
    return float(relative_loss(found[1], found[0]))
