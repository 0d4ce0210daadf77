"""dymn: a whole inverted-residual block made to depend on its input, by one context for all of its parts.

    context     c = hardswish(conv1x1([mean over T, mean over F] of the block's input)), split again into c_F and c_T;
                h = mean of c over both
    convs       W + sum_k (p_k - p_K) delta_k, p = softmax(head(h) / temperature): that is, K kernels W + delta_k whose
                deltas sum to nothing, of which K - 1 are stored
    activation  ReLU: max_j (a_j x + b_j), j = 1, 2, with a and b from h (Dy-ReLU-B); others: act((1 + a) x + b)
    attention   the activation's output * 2 sigmoid(head_F c_F) * 2 sigmoid(head_T c_T), pooled to its size

Source: Schmid et al., Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models (DyMN), 2023; Chen et
al., Dynamic ReLU, 2020; Hou et al., Coordinate Attention, 2021. F and T are an image's two axes. This keeps all of the
paper but the context's batch norm, and every head starts at zero, where the block is what it was. A
squeeze-and-excitation of the block's own stays.

Cost, for c input channels, e channels inside, H = e / 4 rounded to a multiple of 8 in 32..128, K kernels and P weights
in the block's convolutions: (K - 1) P + c H + (3 K + 2 e + 4 e) (H + 1) parameters; 2 K instead of 3 K without an
expansion, 2 e instead of 4 e for other activations than ReLU. Mixing takes (K - 1) P multiply-adds an image.

For efficient nets, on spectrograms and on images. Loses where the file must not grow: with K = 4 the convolutions are
four times as large. `kernels: 1` leaves them as they are and keeps the rest, which any runtime can do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer
from .heads import linear, require_counts
from .inverted import Block, blocks
from .modulation import Modulation
from .passing import Passing
from .router import Router, Static
from .routing import Routing
from .standing import can_gate, can_mix

_NUDGE = 0.01  # the norm of a delta at first, of its kernel's


@dataclass(frozen=True)
class Dymn(Routing):
    """`kernels` that each convolution mixes (1: none); whether the `activation` is dynamic and followed by `attention`;
    `width` of the context, left out the paper's H."""

    name: ClassVar[str] = "dymn"
    kernels: int = 4
    activation: bool = True
    attention: bool = True
    width: int | None = None

    def __post_init__(self) -> None:
        require_counts(self.name, kernels=(self.kernels, 1), width=(self.width, 1))
        if self.kernels == 1 and not (self.activation or self.attention):
            raise RecipeError("KD203", "routing dymn: of one kernel, without activation and attention, nothing is left")

    def can_route(self, layer: Layer) -> str | None:
        alone = layer.groups == 1 and layer.taps == 1
        depthwise = layer.groups > 1 and layer.shape[1] == 1
        inside = can_mix(layer) is None and len(layer.shape) == 4 and (alone or depthwise)
        return can_gate(layer) or (None if inside else "KD137")

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        """A group a block whose pointwise layers are all among `layers`: its depthwise one need not be."""
        given = {layer.name: layer for layer in layers}
        return [self._members(block, given, model) for block in blocks(model) if given.keys() >= {*block.pointwise}]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        passing: Passing[Seen] = Passing()
        width = self._width(next(layer for layer in layers if _is_activation(layer) or layer.groups > 1))
        routers: list[BlockRouter] = []
        for layer, weight, seed in zip(layers, weights, seeds, strict=True):
            router: BlockRouter
            if _is_activation(layer):
                router = ActivationRouter(layer, width, curved=self.activation, attends=self.attention)
            elif self.kernels > 1:
                router = MixRouter(layer.shape, weight, width, self.kernels, seed)
            else:
                router = BlockRouter()
            router.passing = passing
            routers.append(router)
        first = layers[0]
        routers[0].context = linear(first.shape[1] * first.groups, width, seeds[0], bias=False)
        routers[-1].last = True
        return [*routers]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        """The context's, which all of a block shares, are the activation's; of maps that are square."""
        width = self._width(layer)
        if not _is_activation(layer):
            return (width * self.kernels + (self.kernels - 1) * layer.params) if self.kernels > 1 else 0
        channels, inputs = layer.shape
        before, after = (2 * math.isqrt(positions) for positions in (layer.in_positions, layer.out_positions))
        coefficients = _coefficients(layer.kind) * channels * self.activation
        return width * (inputs * before + coefficients + channels * after * self.attention)

    def _members(self, block: Block, given: Mapping[str, Layer], model: nn.Module) -> tuple[Layer, ...]:
        """As they run; the activation's shape is (its channels, the channels of the block's input)."""
        before, after = given[block.pointwise[0]], given[block.project]
        inside: Any = model.get_submodule(block.depthwise)
        depthwise = given.get(block.depthwise) or Layer(
            block.depthwise,
            type(inside).__name__,
            tuple(inside.weight.shape),
            inside.groups,
            tuple(inside.stride),
            tuple(inside.dilation),
            before.out_positions if block.expand else after.in_positions * math.prod(inside.stride),
            after.in_positions,
        )
        convs = [before, depthwise] if block.expand else [depthwise]
        activation = Layer(
            block.activation,
            type(model.get_submodule(block.activation)).__name__,
            (after.in_channels, convs[0].in_channels * convs[0].groups),
            in_positions=convs[0].in_positions,
            out_positions=after.in_positions,
        )
        acts = [activation] if self.activation or self.attention else []
        return (*convs, *acts, after) if self.kernels > 1 else (convs[0], *acts)

    def _width(self, layer: Layer) -> int:
        inside = layer.shape[0] if _is_activation(layer) or layer.groups > 1 else max(layer.shape[:2])
        return self.width or min(128, max(32, 8 * int(inside / 32 + 0.5)))


class Seen(NamedTuple):
    """A block's context: `whole` (batch, width), `rows` (batch, F, width), `columns` (batch, T, width)."""

    whole: Tensor
    rows: Tensor
    columns: Tensor


class BlockRouter(Router):
    """One part of a block. The first has the `context` and leaves what it sees to the others, the `last` drops it."""

    passing: Passing[Seen]
    last = False

    def __init__(self) -> None:
        super().__init__(spatial=2)
        self.context: nn.Linear | None = None

    def seen(self, x: Tensor) -> Seen | None:
        """None where the block's first part has not run on this batch: a part run by itself is what it was."""
        if self.context is not None:
            rows, columns = x.mean(3).mT, x.mean(2).mT
            seen = F.hardswish(self.context(torch.cat([rows, columns], 1)))
            self.passing.leave(0, Seen(seen.mean(1), *seen.split([rows.shape[1], columns.shape[1]], 1)))
        left = self.passing.left
        if self.last:
            self.passing.leave(0, None)
        same = left is not None and left.whole.shape[0] == x.shape[0]  # len() would fix an export's batch
        return left if same else None

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        self.seen(x)
        return Modulation()

    def is_identity(self) -> bool:
        return all(not p.any() for name, p in self.named_parameters() if not name.startswith(("context", "deltas")))


class MixRouter(BlockRouter):
    """A convolution's kernels, mixed by each image's context. Where `temperature` is high, all count alike."""

    temperature: Tensor

    def __init__(self, shape: Sequence[int], weight: Tensor | None, width: int, kernels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed + 1)
        scale = 0.0 if weight is None else _NUDGE * float(weight.detach().float().square().mean().sqrt())
        self.deltas = nn.Parameter(scale * torch.randn((kernels - 1, *shape), generator=generator))
        self.head = linear(width, kernels, None)
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        seen = self.seen(x)
        if seen is None:
            return Modulation()
        shares = torch.softmax(self.head(seen.whole) / self.temperature, 1)
        mix = torch.cat([torch.ones_like(shares[:, :1]), shares[:, :-1] - shares[:, -1:]], 1)
        return Modulation(mix=mix, kernels=torch.cat([weight[None], self.deltas.to(weight.dtype)]))


class ActivationRouter(BlockRouter):
    """A block's inner activation, its curve and what each position counts."""

    def __init__(self, layer: Layer, width: int, *, curved: bool, attends: bool) -> None:
        super().__init__()
        channels = layer.shape[0]
        self.lines = _coefficients(layer.kind) // 2
        self.curve = linear(width, 2 * self.lines * channels, None) if curved else None
        self.rows = linear(width, channels, None) if attends else None
        self.columns = linear(width, channels, None) if attends else None

    def route(self, layer: nn.Module, static: Static, x: Tensor) -> Tensor:
        if x.ndim == 3:  # one image without a batch axis
            return self.route(layer, static, x[None])[0]
        seen = self.seen(x)
        if seen is None:
            return static(x)
        y = static(x) if self.curve is None else self._curved(static, x, self.curve(seen.whole))
        for heads, context, axis in ((self.rows, seen.rows, 2), (self.columns, seen.columns, 3)):
            if heads is not None:
                y = y * _along(2 * torch.sigmoid(heads(_resized(context, x.shape[axis]))), axis).to(y.dtype)
        return y

    def _curved(self, static: Static, x: Tensor, coefficients: Tensor) -> Tensor:
        """From twice as many numbers a channel as there are lines: their slopes less (1, 0), within 1; their heights,
        within a half."""
        theta = (2 * torch.sigmoid(coefficients) - 1).to(x.dtype).unflatten(1, (2 * self.lines, -1))[..., None, None]
        slopes, heights = theta[:, : self.lines], theta[:, self.lines :] / 2
        first = (1 + slopes[:, 0]) * x + heights[:, 0]
        return static(first) if self.lines == 1 else torch.maximum(first, slopes[:, 1] * x + heights[:, 1])


def _is_activation(layer: Layer) -> bool:
    return len(layer.shape) == 2


def _coefficients(kind: str) -> int:
    """Numbers a channel: slope and height of two lines for a ReLU, which is their maximum, of one for others."""
    return 4 if kind == "ReLU" else 2


def _resized(context: Tensor, size: int) -> Tensor:
    """(batch, positions, width) averaged down to `size` positions, where the block has a stride."""
    return context if context.shape[1] == size else F.adaptive_avg_pool1d(context.mT, size).mT


def _along(gate: Tensor, axis: int) -> Tensor:
    """(batch, positions, channels) shaped to scale an image along its rows (axis 2) or its columns (axis 3)."""
    return gate.mT[:, :, :, None] if axis == 2 else gate.mT[:, :, None, :]
