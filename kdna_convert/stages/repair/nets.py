"""What every repair step works on: the two nets, their blocks, and images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from ...core.specs import Layer
from ...network.blocks import Block, find_blocks
from ...network.walk import BlockPair, walk
from ..analyze.survey import target_kernel

# Called after every block: (how many are done, of how many).
Tick = Callable[[int, int], None]
# Longer patches have moments of more than half a gigabyte.
LONGEST_PATCH = 8192
# Transposed, and never reached.
_UNRUN = ("KD104", "KD107")


@dataclass
class Nets:
    """`converted` is changed in place. Of the `images`, batches of inputs, as many are used as `memory` bytes hold the
    activations of: a block's input and output in both nets at a time.
    """

    original: nn.Module
    converted: nn.Module
    layers: Sequence[Layer]
    images: Iterable[Tensor]
    memory: int = 4 * 2**30

    @cached_property
    def _opened(self) -> tuple[tuple[Block, ...], list[Tensor]]:
        """The blocks, found with the first image, and the batches that there is room for."""
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

    @property
    def batches(self) -> list[Tensor]:
        return self._opened[1]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._opened[0]

    @cached_property
    def unreachable(self) -> dict[str, str]:
        """Layers that no block holds."""
        held = {layer.name for block in self.blocks for layer in block.layers}
        return {layer.name: "KD122" for layer in self.layers if layer.name not in held and layer.reason not in _UNRUN}

    def pairs(self, begin: int, tick: Tick) -> Iterator[BlockPair]:
        """The walk from block `begin` on."""
        pairs = walk(self.original, self.converted, self.blocks, self.batches)
        for done, pair in enumerate(pairs):
            if done >= begin:
                yield pair
                tick(done + 1, len(self.blocks))

    def refusal(self, name: str) -> str | None:
        """Why a layer's kernel cannot be refitted by one least-squares problem: a code, or None if it can."""
        module = self.original.get_submodule(name)
        if getattr(module, "groups", 1) != 1:
            return "KD121"
        weight = cast("nn.Linear", module).weight.detach()
        if weight[0].numel() > LONGEST_PATCH:
            return "KD125"
        return None if torch.equal(target_kernel(module).to(weight), weight) else "KD123"
