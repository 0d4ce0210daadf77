"""Low rank, each layer by itself: W ~ U V under the layer's own second moment. Nothing is shared.

    W[o,n] ~ sum_q U[o,q] V[q,n]          V (r x n) and U (out x r) both the layer's own

The data-aware singular value decomposition (SVD-LLM, arXiv 2403.07378, for convolutions), exact and in closed form: U
are the leading eigenvectors of W C W^T and V = U^T W.
Parameters: r (n + out).
The baseline that sharing has to beat, and the right choice for layers that resemble no other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.linalg import Target, mix, times
from ..core.specs import Layout, Shape, product
from .basis import leading_rows, two_factors
from .scheme import CuttableScheme, Tensors


@dataclass(frozen=True)
class LowRank(CuttableScheme):
    """Options: `rank`, of every layer of the family."""

    rank: int = 0

    name: ClassVar[str] = "lowrank"
    size: ClassVar[str] = "rank"
    shares: ClassVar[bool] = False

    def group(self, shape: Shape) -> Hashable:
        return shape

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the layer stores as much as its dense kernel."""
        return max(1, min(product(shape) // (shape[0] + product(shape[1:])) for shape in shapes))

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        return Layout({}, tuple({"U": (shape[0], "rank"), "V": ("rank", product(shape[1:]))} for shape in shapes))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return self.rank * (product(shape[1:]) + shape[0]) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        return {}, [self.fit({}, {"V": leading_rows([target], self.rank)}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares on the layer's own rows V."""
        basis_rn = adapter["V"]
        return {**adapter, "U": mix(times(basis_rn, target.moment) @ basis_rn.T, target.cross_on @ basis_rn.T)}

    def rows(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return adapter["V"]

    def refine(
        self, shared: Tensors, adapters: Sequence[Tensors], targets: Sequence[Target], sweeps: int
    ) -> tuple[Tensors, list[Tensors]]:
        """Nothing is shared: each member keeps its rows and is only fitted."""
        return shared, [self.fit(shared, a, target) for a, target in zip(adapters, targets, strict=True)]

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return two_factors(adapter["U"], adapter["V"], shape)
