"""The input of every repair step: the original and the converted net, their layers, and images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from torch import Tensor, nn

from ...core.specs import Layer
from ...network.blocks import Block, find_blocks
from ...network.derive import derived_layers
from ...network.inference import is_inside
from ...network.standardizing import is_standardizing
from ...network.trace import RunLayer, run_layers, trace
from ...network.walk import Stop, in_order, walk

# Called after every layer or block: (how many are done, of how many).
BlockProgress = Callable[[int, int], None]
# The most bytes that a walk takes for the images, and again for activations. With more, early layers see more images
# than their few inputs need.
MOST = 2**30
# Longer patches have moments of more than half a gigabyte.
LONGEST_PATCH = 8192
# Layers that no walk stops at: transposed (KD104), never run (KD107), no layers at all (KD120).
_UNRUN = ("KD104", "KD107", "KD120")
# Layers whose kernel is not the weight they store: computed (KD105), not floating point (KD111), unreadable (KD112).
_COMPUTED = ("KD105", "KD111", "KD112")


def walk_memory(limit: int) -> int:
    """The memory of a walk under a memory limit, both in bytes."""
    return min(limit // 4, MOST)


@dataclass
class NetPair:
    """The original net, and the converted net that is changed in place.

    Attributes:
        original: The net whose outputs are the target.
        converted: The net to change.
        layers: The surveyed layers.
        images: Batches of inputs.
        memory: Bytes for the images, and again for the activations that both nets hold. It bounds how many images are
            used, above all at layers with many positions.
        deadline: The value of `time.monotonic()` after which no other layer is begun.
        apart: Modules whose inputs are others in the two nets (Task.apart). No walk stops at their layers.
        late: The layers that the last walk did not reach before the deadline.
    """

    original: nn.Module
    converted: nn.Module
    layers: Sequence[Layer]
    images: Iterable[Tensor]
    memory: int = MOST
    deadline: float = math.inf
    apart: Sequence[str] = ()
    late: tuple[str, ...] = ()

    @cached_property
    def batches(self) -> list[Tensor]:
        """The images that are used: as many as fit in memory."""
        kept: list[Tensor] = []
        room = self.memory
        for batch in self.images:
            fits = max(0 if kept else 1, room // max(1, batch[:1].nbytes))
            kept.append(batch[:fits])
            room -= batch.nbytes
            if fits <= len(batch):
                break
        return [batch for batch in kept if len(batch)]

    @cached_property
    def run_layers(self) -> tuple[RunLayer, ...]:
        """The layers that run once on one tensor, in the order in which a walk stops at them."""
        return in_order(run_layers(self.original, trace(self.original, self.batches[0][:1]), self._names))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the original, in the order of execution."""
        return find_blocks(self.original, self._names, self.batches[0][:1])

    @property
    def unreachable(self) -> dict[str, str]:
        """The layers that no walk stops at, with the code of the reason."""
        reached = {layer.name for layer in self.run_layers}
        apart = {layer.name: "KD147" for layer in self.layers if is_inside(layer.name, self.apart)}
        return apart | {name: "KD122" for name in self._names if name not in reached}

    def walk(self, begin: int, progress: BlockProgress) -> Iterator[Stop]:
        """Stop at every layer, from number `begin` on."""
        return self._walk(self.run_layers, begin, progress)

    def walk_blocks(self, begin: int, progress: BlockProgress) -> Iterator[tuple[Block, Stop]]:
        """Stop at every block, from number `begin` on."""
        blocks = {block.name: block for block in self.blocks}
        for stop in self._walk([RunLayer(name) for name in blocks], begin, progress):
            yield blocks[stop.layer.name], stop

    def refusal(self, name: str) -> str | None:
        """The code of the reason why a layer's kernel is not one least-squares problem; None if it is one."""
        module = self.original.get_submodule(name)
        if getattr(module, "groups", 1) != 1:
            return "KD121"
        reason = next((layer.reason for layer in self.layers if layer.name == name), None)
        if reason in _COMPUTED:
            return "KD123"
        if reason == "KD106":
            return reason
        weight = cast("nn.Linear", module).weight.detach()
        if weight[0].numel() > LONGEST_PATCH:
            return "KD125"
        converted = derived_layers(self.converted.get_submodule(name)).get("")
        as_run = converted is not None and converted.standardized is not None
        return None if as_run or not is_standardizing(module) else "KD123"

    @property
    def _names(self) -> list[str]:
        own = [layer.name for layer in self.layers if layer.reason not in _UNRUN]
        return [name for name in own if not is_inside(name, self.apart)]

    def _walk(self, places: Sequence[RunLayer], begin: int, progress: BlockProgress) -> Iterator[Stop]:
        done, self.late = begin, ()
        for stop in walk(self.original, self.converted, places, self.batches, memory=self.memory, begin=begin):
            if time.monotonic() > self.deadline:
                self.late = tuple(place.name for place in places[done:])
                return
            yield stop
            done += 1
            progress(done, len(places))
