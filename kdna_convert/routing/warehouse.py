"""warehouse: KernelWarehouse's routing. A kernel's cells are mixed anew for each image, from those of its whole stage.

    W(x)_i = W_i + gamma_i sum_j z_ij / (1 + sum_j |z_ij|) e_j        z = fc2(relu(fc1(mean of x over positions)))

A cell is a block of channels, out by in, at one tap. The warehouse e_1 .. e_n are the cells of all kernels of a stage,
as they are at that moment, and with `budget` b > 1 (b - 1) times as many that are stored. gamma, one number a cell,
starts at zero; fc2 does not, so that gamma learns at once. The z may be negative and compete, which is the paper's
contrast; its normaliser's 1/1000 is 1 here, for with that a small z has a thousandfold gradient. One column of z
belongs to no cell, as in the paper. Layers with inputs of one size are a stage, so that strided ones belong with those
before them; a layer joins where its channels are multiples of the stage's smallest.

Source: Li et al., KernelWarehouse, ICML 2024 (arXiv 2406.07879). Its batch norm is left out, so that one image trains.
Budgets below 1 are storage, not routing: `scheme: warehouse`, or another, stores a stage's kernels in fewer cells, and
at budget 1 this mixes the kernels that come of it, with no parameter but the attention's.
Cost of a layer of c input channels, m of the n cells, P parameters and h = max(c / reduction, 16) hidden numbers:
c h + h + (h + 1) m (n + 1) + m parameters, and (b - 1) P with b > 1; c h + h m (n + 1) + n P multiply-adds an image,
more than the layer's own where n exceeds its output positions; and a kernel for each image in memory.
For nets that lack capacity and have time. Loses in speed to gates; frozen, it costs nothing. In a narrow net, whose
cells are small and many, the attention outweighs the kernels: 0.20 M parameters for the 0.27 M of a ResNet-20.
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
from .heads import hidden_channels, linear, require_counts
from .modulation import Modulation, pooled
from .router import Router
from .routing import Routing
from .standing import can_mix

BUDGETS = (1, 2, 4)


@dataclass(frozen=True)
class Warehouse(Routing):
    """`budget`: cells in the warehouse over cells in its layers, 1, 2 or 4. `reduction`: input channels over hidden."""

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
        """A stage's layers by the cell they can be cut into; a warehouse of a single cell is none."""
        stages: dict[tuple[int, ...], list[Layer]] = {}
        for layer in layers:
            stages.setdefault((layer.in_positions, len(layer.shape), layer.groups), []).append(layer)
        groups = [group for stage in stages.values() for group in _by_cell(stage)]
        return [group for group in groups if self._cells(group) > 1]

    def build(self, layers: Sequence[Layer], weights: Sequence[Tensor | None], seeds: Sequence[int]) -> list[Router]:
        columns = self._cells(layers) + 1
        built = [
            WarehouseRouter(layer, _cell(layers), columns, hidden_channels(layer, self.reduction), seed)
            for layer, seed in zip(layers, seeds, strict=True)
        ]
        if self.budget > 1:
            cells_moi = torch.cat([cut(weight, _cell(layers)) for weight in weights if weight is not None])
            built[0].cells = nn.Parameter(_extra(cells_moi, int(self.budget), seeds[0]))
        for router in built:
            object.__setattr__(router, "owner", built[0])  # derive.py, Note [Borrowed tensors]
        return list(built)

    def macs(self, layers: Sequence[Layer]) -> int:
        cells, cell = self._cells(layers), _cell(layers)
        looks = (hidden_channels(one, self.reduction) for one in layers)
        attention = (
            hidden * (one.input_channels + _count(one, cell) * (cells + 1))
            for one, hidden in zip(layers, looks, strict=True)
        )
        return sum(attention) + cells * sum(layer.params for layer in layers)

    def _cells(self, layers: Sequence[Layer]) -> int:
        return int(self.budget) * sum(_count(layer, _cell(layers)) for layer in layers)


class WarehouseRouter(Router):
    """A kernel whose cells are mixed anew for each image, from the kernels of all `members` and the owner's cells."""

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

    def stand(self, layers: Sequence[nn.Module], place: int) -> None:
        self.members, self.place = tuple(layers), place  # a tuple, in which nn.Module sees no submodules

    def forward(self, x: Tensor, weight: Tensor) -> Modulation:
        kernels = [weight if one == self.place else layer.weight for one, layer in enumerate(self.members)]
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
    """(cells, out of a cell, in of a cell): those of one block of channels side by side, tap by tap."""
    outs, ins = cell
    blocks = weight.reshape(len(weight) // outs, outs, weight.shape[1] // ins, ins, -1)
    return blocks.permute(0, 2, 4, 1, 3).flatten(0, 2)


def joined(cells_mc: Tensor, shape: Sequence[int], cell: tuple[int, int]) -> Tensor:
    """(batch, *shape): the kernels that were cut into these cells, one after another."""
    outs, ins = cell
    blocks = cells_mc.view(-1, shape[0] // outs, shape[1] // ins, product(tuple(shape[2:])), outs, ins)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(-1, *shape)


def _by_cell(stage: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Groups of layers whose channels are multiples of their smallest's, until none is left."""
    left, groups = list(stage), []
    while left:
        outs, ins = min((layer.shape[:2] for layer in left), key=product)
        group = tuple(layer for layer in left if layer.shape[0] % outs == 0 and layer.shape[1] % ins == 0)
        groups.append(group)
        left = [layer for layer in left if layer not in group]
    return groups


def _cell(layers: Sequence[Layer]) -> tuple[int, int]:
    """Channels out and in of a group's cells."""
    return gcd(*(layer.shape[0] for layer in layers)), gcd(*(layer.shape[1] for layer in layers))


def _count(layer: Layer, cell: tuple[int, int]) -> int:
    return layer.params // product(cell)


def _extra(cells_moi: Tensor, budget: int, seed: int) -> Tensor:
    """(budget - 1) x m more cells: random mixings of the m there are, as large as these."""
    generator = torch.Generator().manual_seed(seed)
    count = len(cells_moi)
    mixing = torch.randn((budget - 1) * count, count, generator=generator) / count**0.5
    return torch.einsum("em,moi->eoi", mixing.to(cells_moi), cells_moi)
