"""dymn: a whole inverted-residual block depends on its input, by one context for all of its parts.

    context     c = hardswish(conv1x1([mean over T, mean over F] of the block's input)), split again into c_F and c_T;
                h = mean of c over both
    convs       W + sum_k (p_k - p_K) delta_k, p = softmax(head(h) / temperature): that is, K kernels W + delta_k whose
                deltas sum to zero, of which K - 1 are stored
    activation  ReLU: max_j (a_j x + b_j), j = 1, 2, with a and b from h (Dy-ReLU-B); others: act((1 + a) x + b)
    attention   the activation's output * 2 sigmoid(head_F c_F) * 2 sigmoid(head_T c_T), pooled to its size

Source: Schmid et al., Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models (DyMN), 2023 (arXiv
2310.15648); Chen et al., Dynamic ReLU, ECCV 2020 (arXiv 2003.10027); Hou et al., Coordinate Attention, CVPR 2021 (arXiv
2103.02907). F and T are the two axes of an image. This is all of the paper but the context's batch norm. Every head
starts at zero, where the block is unchanged. A squeeze-and-excitation in the block stays.

Cost, for c input channels, e channels inside, H = e / 4 rounded to a multiple of 8 in 32..128, K kernels and P weights
in the block's convolutions: (K - 1) P + c H + (3 K + 2 e + 4 e) (H + 1) parameters; 2 K instead of 3 K without an
expansion, 2 e instead of 4 e for other activations than ReLU. Mixing takes (K - 1) P multiply-adds per image.

For efficient nets, on spectrograms and on images. Loses if the file must not grow: with K = 4 the convolutions are
four times as large. `kernels: 1` keeps the convolutions and the rest of the block, which any runtime can run.
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
from .forward_state import ForwardState
from .heads import linear, require_counts
from .inverted_residual import BlockParts, inverted_residuals
from .modulation import Modulation
from .router import Router, StaticForward
from .routing import Routing
from .supported import can_gate, can_mix

_START = 0.01  # the norm of a delta at the start, relative to its kernel's


@dataclass(frozen=True)
class Dymn(Routing):
    """Options: `kernels` that each convolution mixes (1: its own only); `activation`, whether it is dynamic;
    `attention`, whether it follows the activation; `width` of the context, by default the paper's H."""

    name: ClassVar[str] = "dymn"
    kernels: int = 4
    activation: bool = True
    attention: bool = True
    width: int | None = None

    def __post_init__(self) -> None:
        require_counts(self.name, kernels=(self.kernels, 1), width=(self.width, 1))
        if self.kernels == 1 and not (self.activation or self.attention):
            raise RecipeError("KD203", "routing dymn: kernels: 1 without activation and attention changes nothing")

    def can_route(self, layer: Layer) -> str | None:
        alone = layer.groups == 1 and layer.taps == 1
        depthwise = layer.groups > 1 and layer.shape[1] == 1
        inside = can_mix(layer) is None and len(layer.shape) == 4 and (alone or depthwise)
        return can_gate(layer) or (None if inside else "KD137")

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        """One group for each block whose pointwise layers are all in `layers`. Its depthwise layer need not be."""
        given = {layer.name: layer for layer in layers}
        blocks = [block for block in inverted_residuals(model) if given.keys() >= {*block.pointwise}]
        return [self._members(block, given, model) for block in blocks]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        state: ForwardState[BlockContext] = ForwardState()
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
            router.state = state
            routers.append(router)
        first = layers[0]
        routers[0].context = linear(first.shape[1] * first.groups, width, seeds[0], bias=False)
        routers[-1].last = True
        return [*routers]

    def macs(self, layers: Sequence[Layer]) -> int:
        return sum(map(self._macs, layers))

    def _macs(self, layer: Layer) -> int:
        """For square maps. The activation counts the context, which all parts of a block share."""
        width = self._width(layer)
        if not _is_activation(layer):
            return (width * self.kernels + (self.kernels - 1) * layer.params) if self.kernels > 1 else 0
        channels, inputs = layer.shape
        before, after = (2 * math.isqrt(positions) for positions in (layer.in_positions, layer.out_positions))
        coefficients = _coefficients(layer.kind) * channels * self.activation
        return width * (inputs * before + coefficients + channels * after * self.attention)

    def _members(self, block: BlockParts, given: Mapping[str, Layer], model: nn.Module) -> tuple[Layer, ...]:
        """The parts of a block as they run. The activation's shape is (its channels, channels of the block's input)."""
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


class BlockContext(NamedTuple):
    """A block's context: `whole` (batch, width), `rows` (batch, F, width), `columns` (batch, T, width)."""

    whole: Tensor
    rows: Tensor
    columns: Tensor


class BlockRouter(Router):
    """One part of a block. The first has the layer `context` and stores its output for the others; `last` drops it."""

    state: ForwardState[BlockContext]
    last = False

    def __init__(self) -> None:
        super().__init__(spatial=2)
        self.context: nn.Linear | None = None

    def block_context(self, x: Tensor) -> BlockContext | None:
        """The context, or None if the block's first part has not run on this batch: a part by itself is static."""
        if self.context is not None:
            rows, columns = x.mean(3).mT, x.mean(2).mT
            both = F.hardswish(self.context(torch.cat([rows, columns], 1)))
            self.state.store(0, BlockContext(both.mean(1), *both.split([rows.shape[1], columns.shape[1]], 1)))
        context = self.state.value
        if self.last:
            self.state.store(0, None)
        same = context is not None and context.whole.shape[0] == x.shape[0]  # len() would fix an export's batch size
        return context if same else None

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        self.block_context(x)
        return Modulation()

    def is_identity(self) -> bool:
        return all(not p.any() for name, p in self.named_parameters() if not name.startswith(("context", "deltas")))


class MixRouter(BlockRouter):
    """Mixes a convolution's kernels by each image's context. At a high `temperature` their weights are nearly equal."""

    temperature: Tensor

    def __init__(self, shape: Sequence[int], weight: Tensor | None, width: int, kernels: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed + 1)
        scale = 0.0 if weight is None else _START * float(weight.detach().float().square().mean().sqrt())
        self.deltas = nn.Parameter(scale * torch.randn((kernels - 1, *shape), generator=generator))
        self.head = linear(width, kernels, None)
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        context = self.block_context(x)
        if context is None:
            return Modulation()
        shares = torch.softmax(self.head(context.whole) / self.temperature, 1)
        mix = torch.cat([torch.ones_like(shares[:, :1]), shares[:, :-1] - shares[:, -1:]], 1)
        return Modulation(mix=mix, kernels=torch.cat([weight[None], self.deltas.to(weight.dtype)]))


class ActivationRouter(BlockRouter):
    """The block's inner activation: its curve, and an attention on positions."""

    def __init__(self, layer: Layer, width: int, *, curved: bool, attends: bool) -> None:
        super().__init__()
        channels = layer.shape[0]
        self.lines = _coefficients(layer.kind) // 2
        self.curve = linear(width, 2 * self.lines * channels, None) if curved else None
        self.rows = linear(width, channels, None) if attends else None
        self.columns = linear(width, channels, None) if attends else None

    def route(self, layer: nn.Module, static: StaticForward, x: Tensor) -> Tensor:
        if x.ndim == 3:  # one image without a batch axis
            return self.route(layer, static, x[None])[0]
        context = self.block_context(x)
        if context is None:
            return static(x)
        y = static(x) if self.curve is None else self._curved(static, x, self.curve(context.whole))
        for head, positions, axis in ((self.rows, context.rows, 2), (self.columns, context.columns, 3)):
            if head is not None:
                y = y * _along(2 * torch.sigmoid(head(_resized(positions, x.shape[axis]))), axis).to(y.dtype)
        return y

    def _curved(self, static: StaticForward, x: Tensor, coefficients: Tensor) -> Tensor:
        """The activation from two coefficients per line and channel: slopes minus (1, 0), in -1..1, and heights, in
        -1/2..1/2."""
        theta = (2 * torch.sigmoid(coefficients) - 1).to(x.dtype).unflatten(1, (2 * self.lines, -1))[..., None, None]
        slopes, heights = theta[:, : self.lines], theta[:, self.lines :] / 2
        first = (1 + slopes[:, 0]) * x + heights[:, 0]
        return static(first) if self.lines == 1 else torch.maximum(first, slopes[:, 1] * x + heights[:, 1])


def _is_activation(layer: Layer) -> bool:
    return len(layer.shape) == 2


def _coefficients(kind: str) -> int:
    """Coefficients of a channel: slope and height of two lines for a ReLU, which is their maximum, else of one line."""
    return 4 if kind == "ReLU" else 2


def _resized(context: Tensor, size: int) -> Tensor:
    """Average (batch, positions, width) down to `size` positions, for a block with a stride."""
    return context if context.shape[1] == size else F.adaptive_avg_pool1d(context.mT, size).mT


def _along(factors: Tensor, axis: int) -> Tensor:
    """Factors (batch, positions, channels) in the shape that scales an image along its rows (axis 2) or columns (3)."""
    return factors.mT[:, :, :, None] if axis == 2 else factors.mT[:, :, None, :]
