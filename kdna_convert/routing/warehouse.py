"""warehouse: KernelWarehouse's routing. Each image mixes a kernel's cells from those of its whole stage.

    W(x)_i = W_i + gamma_i sum_j z_ij / (1 + sum_j |z_ij|) e_j        z = fc2(relu(fc1(mean of x over positions)))

A cell is a block of channels, out by in, at one tap. The warehouse e_1 .. e_n consists of the cells of all kernels of a
stage, at their present values, and with `budget` b > 1 of (b - 1) times as many that are stored. gamma, one number for
each cell, starts at zero; fc2 does not, so that gamma has a gradient at once. The z can be negative and compete, which
is the paper's contrastive attention. Its normalizer adds 1/1000; here it adds 1, since with 1/1000 a small z has a
thousandfold gradient. One column of z belongs to no cell, as in the paper. Layers with inputs of one size form a stage,
so that strided layers belong to the layers before them. A layer joins if its channels are multiples of the stage's
smallest.

Source: Li et al., KernelWarehouse, ICML 2024 (arXiv 2406.07879). Without its batch norm, so that one image trains.
Budgets below 1 are storage, not routing: `scheme: warehouse`, or another scheme, stores a stage's kernels in fewer
cells, and at budget 1 this routing mixes the kernels that result, with no parameters but those of the attention.
Cost of a layer with c input channels, m of the n cells, P parameters and h = max(c / reduction, 16) hidden numbers:
c h + h + (h + 1) m (n + 1) + m parameters, and (b - 1) P with b > 1; c h + h m (n + 1) + n P multiply-adds per image,
more than the layer's own if n exceeds its output positions; and a kernel for each image in memory.
For nets that lack capacity and have time. Loses in speed to gates; frozen, it costs nothing. In a narrow net, whose
cells are small and many, the attention is larger than the kernels: 0.20 M parameters for the 0.27 M of a ResNet-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import RecipeError
from ..core.specs import Layer, product
from .heads import hidden_channels, linear, pooled, require_counts
from .modulation import Modulation
from .router import Router
from .routing import Routing
from .supported import can_mix

BUDGETS = (1, 2, 4)


@dataclass(frozen=True)
class WarehouseRouting(Routing):
    """Options: `budget`, cells in the warehouse over cells in its layers, 1, 2 or 4; `reduction`, input channels over
    hidden ones."""

    name: ClassVar[str] = "warehouse"
    budget: float = 1
    reduction: int = 16

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            way_out = "; below 1 it is a scheme's (`scheme: warehouse`), with this at 1" if self.budget < 1 else ""
            raise RecipeError("KD203", f"routing warehouse: budget must be 1, 2 or 4, got {self.budget:g}{way_out}")
        require_counts(self.name, reduction=(self.reduction, 1))

    def can_route(self, layer: Layer) -> str | None:
        return can_mix(layer)

    def groups(self, layers: Sequence[Layer], model: nn.Module) -> list[tuple[Layer, ...]]:
        """The layers of a stage, by the cell that they can be cut into. A group of a single cell is left out."""
        stages: dict[tuple[int, ...], list[Layer]] = {}
        for layer in layers:
            stages.setdefault((layer.in_positions, len(layer.shape), layer.groups), []).append(layer)
        groups = [group for stage in stages.values() for group in _by_cell(stage)]
        return [group for group in groups if self._cells(group) > 1]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        columns = self._cells(layers) + 1
        routers = [
            WarehouseRouter(layer, _cell(layers), columns, hidden_channels(layer, self.reduction), seed)
            for layer, seed in zip(layers, seeds, strict=True)
        ]
        if self.budget > 1:
            cells_moi = torch.cat([cut(weight, _cell(layers)) for weight in weights if weight is not None])
            routers[0].cells = nn.Parameter(_extra(cells_moi, int(self.budget), seeds[0]))
        for router in routers:
            object.__setattr__(router, "owner", routers[0])  # network/derive.py, Note [Borrowed tensors]
        return list(routers)

    def macs(self, layers: Sequence[Layer]) -> int:
        cells, cell = self._cells(layers), _cell(layers)
        attention = sum(
            hidden_channels(layer, self.reduction) * (layer.input_channels + _count(layer, cell) * (cells + 1))
            for layer in layers
        )
        return attention + cells * sum(layer.params for layer in layers)

    def _cells(self, layers: Sequence[Layer]) -> int:
        return int(self.budget) * sum(_count(layer, _cell(layers)) for layer in layers)


class WarehouseRouter(Router):
    """Mixes a kernel's cells for each image from the kernels of all `members` and the owner's stored cells."""

    members: tuple[Any, ...]
    owner: WarehouseRouter

    def __init__(self, layer: Layer, cell: tuple[int, int], columns: int, hidden: int, seed: int) -> None:
        super().__init__(len(layer.shape) - 2)
        self.cell = cell
        self.rows = _count(layer, cell)
        self.fc1 = linear(layer.input_channels, hidden, seed)
        self.fc2 = linear(hidden, self.rows * columns, seed + 1)
        self.gamma = nn.Parameter(torch.zeros(self.rows))
        self.cells: nn.Parameter | None = None

    def bind(self, layers: Sequence[nn.Module], place: int) -> None:
        self.members, self.place = tuple(layers), place  # a tuple, in which nn.Module sees no submodules

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        kernels = [weight if place == self.place else layer.weight for place, layer in enumerate(self.members)]
        cells = [cut(kernel.to(weight), self.cell) for kernel in kernels]
        start = sum(map(len, cells[: self.place]))
        cells_nc = torch.cat(cells if self.owner.cells is None else [*cells, self.owner.cells.to(weight)]).flatten(1)
        identity_mn = torch.eye(len(cells_nc), dtype=weight.dtype, device=weight.device)[start : start + self.rows]
        z = self.fc2(F.relu(self.fc1(pooled(x, self.spatial)))).unflatten(1, (self.rows, -1))
        competing = z[..., :-1] / (1 + z.abs().sum(-1, keepdim=True))
        mixing_bmn = identity_mn + self.gamma[:, None] * competing
        return Modulation(kernel=joined(mixing_bmn.flatten(0, 1) @ cells_nc, weight.shape, self.cell))

    def is_identity(self) -> bool:
        return not self.gamma.any()


def cut(weight: Tensor, cell: tuple[int, int]) -> Tensor:
    """Cut a kernel into cells (cells, out of a cell, in of a cell), block by block, tap by tap."""
    outs, ins = cell
    blocks = weight.reshape(len(weight) // outs, outs, weight.shape[1] // ins, ins, -1)
    return blocks.permute(0, 2, 4, 1, 3).flatten(0, 2)


def joined(cells_mc: Tensor, shape: Sequence[int], cell: tuple[int, int]) -> Tensor:
    """Join the cells of kernels, one kernel after another: (batch, *shape). The inverse of `cut`."""
    outs, ins = cell
    blocks = cells_mc.view(-1, shape[0] // outs, shape[1] // ins, product(tuple(shape[2:])), outs, ins)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(-1, *shape)


def _by_cell(stage: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Divide layers into groups in which all channels are multiples of those of the smallest layer."""
    rest, groups = list(stage), []
    while rest:
        outs, ins = min((layer.shape[:2] for layer in rest), key=product)
        group = tuple(layer for layer in rest if layer.shape[0] % outs == 0 and layer.shape[1] % ins == 0)
        groups.append(group)
        rest = [layer for layer in rest if layer not in group]
    return groups


def _cell(layers: Sequence[Layer]) -> tuple[int, int]:
    """The output and input channels of a group's cells."""
    return gcd(*(layer.shape[0] for layer in layers)), gcd(*(layer.shape[1] for layer in layers))


def _count(layer: Layer, cell: tuple[int, int]) -> int:
    return layer.params // product(cell)


def _extra(cells_moi: Tensor, budget: int, seed: int) -> Tensor:
    """(budget - 1) x m more cells: random mixings of the m given ones, of the same size."""
    generator = torch.Generator().manual_seed(seed)
    count = len(cells_moi)
    mixing = torch.randn((budget - 1) * count, count, generator=generator) / count**0.5
    return torch.einsum("em,moi->eoi", mixing.to(cells_moi), cells_moi)
