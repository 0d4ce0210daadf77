"""context: gates on a layer's input and output channels that see more than the layer's own input.

    y = 2 sigmoid(head_out z) * conv(2 sigmoid(head_in z) * x, W [* 2 sigmoid(head_taps z)])
    images:  z = relu(fc1 [g, z'])                 g the mean over positions, z' the z of the layer before in its stage
    frames:  z = relu(fc1 [g, temporal(g), g - g before])      temporal: a depthwise convolution over five frames

Source: our own interpretation of DESign (arXiv 2507.03339, "dynamic context-aware convolution"), whose equations are
not public: gates for each frame, from the frame, its neighbors and its motion. On still images the neighbor is the
layer before. A stage is a run of layers of equal output size. With `frames` above 1 a batch is whole clips, frame after
frame.
Cost: h (2 in + out + 1) + in + out parameters for an image's gates, h' h more for a layer that has one before it, one
pass over the input, and one pass each over input and output to scale them. `taps` needs a kernel for each image.
For video, and for nets whose layers repeat (stages of equal blocks). Loses if a plain `se` does as well, since it
scales one map more. Gradient checkpointing runs layers again out of order and loses the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import DataError
from ..core.specs import Layer
from .forward_state import ForwardState
from .heads import all_zero, apply_linear, gate, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_gate, can_mix

_REACH = 5  # frames of the temporal context


@dataclass(frozen=True)
class Context(Routing):
    """Options: `frames` in a clip, 1 for still images; `taps`, whether the kernel's positions have gates too;
    `reduction`, input channels over hidden ones, of which there are at least four; `width`, the hidden channels
    instead."""

    name: ClassVar[str] = "context"
    frames: int = 1
    taps: bool = False
    reduction: int = 16
    width: int | None = None

    def __post_init__(self) -> None:
        require_counts(self.name, frames=(self.frames, 1), reduction=(self.reduction, 1), width=(self.width, 1))

    def can_route(self, layer: Layer) -> str | None:
        return can_mix(layer) if self._taps(layer) else can_gate(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        if self.frames > 1:
            return [(layer,) for layer in layers]
        stages = groupby(layers, key=lambda layer: (layer.out_positions, len(layer.shape)))
        return [tuple(stage) for _, stage in stages]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        stage: ForwardState[Tensor] = ForwardState()
        widths = [self._width(layer) for layer in layers]
        before = [0, *widths[:-1]]
        routers: list[Router] = []
        for place, (layer, seed) in enumerate(zip(layers, seeds, strict=True)):
            router: ContextRouter
            if self.frames > 1:
                router = ClipRouter(layer, widths[place], self._taps(layer), seed, self.frames)
            else:
                router = ImageRouter(layer, widths[place], self._taps(layer), seed, before[place])
                router.join(stage, place, last=place == len(layers) - 1)
            routers.append(router)
        return routers

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        """Per image or frame, for a layer with one before it in its stage that has as many hidden channels."""
        channels, width = layer.shape[1] * layer.groups, self._width(layer)
        inner = (3 * width + _REACH) * channels if self.frames > 1 else width * (channels + width)
        return inner + width * (channels + layer.shape[0] + self._taps(layer))

    def _width(self, layer: Layer) -> int:
        return self.width or max(4, layer.shape[1] * layer.groups // self.reduction)

    def _taps(self, layer: Layer) -> int:
        return layer.taps if self.taps and layer.taps > 1 else 0


class ContextRouter(Router):
    """Gates from the hidden channels that `hidden` computes, by one head that starts at zero."""

    def __init__(self, layer: Layer, width: int, taps: int) -> None:
        super().__init__(len(layer.shape) - 2)
        self.parts = [layer.shape[1] * layer.groups, layer.shape[0], *[taps] * (taps > 0)]
        self.head = linear(width, sum(self.parts), None)

    def hidden(self, means: Tensor) -> Tensor:
        """(batch, width) from the input's means over positions, (batch, channels)."""
        raise NotImplementedError

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        gates = gate(apply_linear(self.head, self.hidden(pooled(x, self.spatial))))
        inputs, outputs, *taps = gates.split_with_sizes(self.parts, 1)
        return Modulation(inputs=inputs, outputs=outputs, taps=taps[0].view(-1, *weight.shape[2:]) if taps else None)

    def is_identity(self) -> bool:
        return all_zero(self.head)


class ImageRouter(ContextRouter):
    """The context is the layer before in the stage, if it has run on this batch."""

    def __init__(self, layer: Layer, width: int, taps: int, seed: int, before: int) -> None:
        super().__init__(layer, width, taps)
        self.fc1 = linear(self.parts[0] + before, width, seed, bias=False)

    def join(self, stage: ForwardState[Tensor], place: int, *, last: bool) -> None:
        self.stage, self.place, self.last = stage, place, last

    def hidden(self, means: Tensor) -> Tensor:
        stage, place = self.stage, self.place
        stage.enter(place)
        before = stage.value if place and stage.place == place - 1 else None
        if before is not None and before.shape[0] == means.shape[0]:  # len() would fix the batch size of an export
            z = apply_linear(self.fc1, torch.cat([means, before.to(means.dtype)], 1))
        else:
            z = F.linear(means, self.fc1.weight[:, : means.shape[1]])
        z = F.relu(z)
        stage.store(place, None if self.last else z)
        return z


class ClipRouter(ContextRouter):
    """The context is the other frames of the clip."""

    def __init__(self, layer: Layer, width: int, taps: int, seed: int, frames: int) -> None:
        super().__init__(layer, width, taps)
        channels = self.parts[0]
        self.frames = frames
        self.fc1 = linear(3 * channels, width, seed, bias=False)
        self.temporal = nn.Parameter(linear(_REACH, channels, seed + 1, bias=False).weight.detach()[:, None])

    def hidden(self, means: Tensor) -> Tensor:
        """Raises DataError KD409 for a batch that is not a whole number of clips."""
        if len(means) % self.frames:
            raise DataError("KD409", f"a batch of {len(means)} is not a whole number of clips of {self.frames} frames")
        clips = means.view(-1, self.frames, means.shape[1])
        context = F.conv1d(clips.mT, self.temporal.to(clips.dtype), None, padding=_REACH // 2, groups=clips.shape[2]).mT
        motion = F.pad(clips.diff(dim=1), (0, 0, 1, 0))
        return F.relu(self.fc1(torch.cat([clips, context, motion], 2))).flatten(0, 1)
