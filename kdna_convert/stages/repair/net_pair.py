"""The input of every repair step: the original and the converted net, their blocks, and images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import cast

from torch import Tensor, nn

from ...core.specs import Layer
from ...network.blocks import Block, find_blocks
from ...network.derive import derived_layers
from ...network.standardizing import is_standardizing
from ...network.walk import BlockPair, walk

# Called after every block: (how many are done, of how many).
BlockProgress = Callable[[int, int], None]
# Longer patches have moments of more than half a gigabyte.
LONGEST_PATCH = 8192
# Layers without blocks: transposed (KD104), never run (KD107), no layers at all (KD120).
_UNRUN = ("KD104", "KD107", "KD120")
# Layers whose kernel is not the weight they store: computed (KD105), not floating point (KD111), unreadable (KD112).
_COMPUTED = ("KD105", "KD111", "KD112")


@dataclass
class NetPair:
    """The original net, and the converted net that is changed in place.

    Attributes:
        original: The net whose outputs are the target.
        converted: The net to change.
        layers: The surveyed layers.
        images: Batches of inputs.
        memory: Bytes for the activations of one block, input and output in both nets. It bounds how many images are
            used.
    """

    original: nn.Module
    converted: nn.Module
    layers: Sequence[Layer]
    images: Iterable[Tensor]
    memory: int = 4 * 2**30

    @property
    def batches(self) -> list[Tensor]:
        """The images that are used."""
        return self._opened[1]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the original, in the order of execution."""
        return self._opened[0]

    @cached_property
    def unreachable(self) -> dict[str, str]:
        """The layers that are in no block, with the code of the reason."""
        reached = {layer.name for block in self.blocks for layer in block.layers}
        return {
            layer.name: "KD122" for layer in self.layers if layer.name not in reached and layer.reason not in _UNRUN
        }

    def pairs(self, begin: int, progress: BlockProgress) -> Iterator[BlockPair]:
        """Walk both nets block by block, from block `begin` on."""
        for done, pair in enumerate(walk(self.original, self.converted, self.blocks, self.batches)):
            if done >= begin:
                yield pair
                progress(done + 1, len(self.blocks))

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

    @cached_property
    def _opened(self) -> tuple[tuple[Block, ...], list[Tensor]]:
        """The blocks, found with the first image, and as many batches as fit in memory."""
        stream = iter(self.images)
        first = next(stream)
        names = [layer.name for layer in self.layers if layer.reason not in _UNRUN]
        blocks = find_blocks(self.original, names, first[:1])
        walked = walk(self.original, self.original, blocks, [first[:1]])
        widest = max((pair.inputs[0].numel() for pair in walked), default=1)
        room = max(1, self.memory // (4 * 4 * widest))
        kept: list[Tensor] = []
        for batch in chain([first], stream):
            kept.append(batch[:room])
            room -= len(batch)
            if room <= 0:
                break
        return blocks, kept
