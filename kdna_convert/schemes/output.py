"""Output basis: a family shares the space of its outputs; each member has its own filters into it.

    W[o,n] ~ sum_q U[o,q] V[q,n]          U (out x r) shared; V (r x n) the member's adapter, n = in x taps

The shared basis with its sides exchanged: kernels of any input width and any taps share if they write equally many
channels, for example all that write to one residual stream.
Parameters: r out + r sum n. Folded, a member is an ordinary convolution. Factored (r filters, then 1x1), it takes
r (n + out) multiply-adds per position.
Loses to every other scheme at 3x3, low rank included: what is shared is the small factor, out numbers of out + n, so it
saves almost no rank, and each layer is restricted to the directions of the others. For a family whose members agree
only in their outputs and write to the same few directions of them.

Fit, exact and in closed form: given U the best V_l is U^+ X_l C_l^-1, with X_l the cross moment, whatever C_l is. So U
are the leading eigenvectors of sum_l weight_l X_l C_l^-1 X_l^T. No iterations, no start, no seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import RecipeError
from ..core.linalg import Target, times_inverse
from ..core.specs import Layout, Shape, product
from .basis import two_factors
from .dense_limit import dense_limit
from .scheme import Scheme, Tensors


@dataclass(frozen=True)
class Output(Scheme):
    """Options: `rank`, the number of shared output directions."""

    rank: int = 0

    name: ClassVar[str] = "output"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[0]

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels."""
        return dense_limit(self.layout(shapes), shapes)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        return Layout({"U": (shapes[0][0], "rank")}, tuple({"V": ("rank", product(shape[1:]))} for shape in shapes))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return self.rank * (product(shape[1:]) + shape[0]) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        carried = min(targets[0].shape[0], sum(product(target.shape[1:]) for target in targets))
        if self.rank > carried:
            raise RecipeError("KD207", f"rank: these kernels have {carried} output directions, not {self.rank}")
        written = [
            target.weight * times_inverse(target.cross_on, target.moment) @ target.cross_on.T for target in targets
        ]
        written_oo = torch.stack(written).sum(0)
        _, vectors = torch.linalg.eigh((written_oo + written_oo.T) / 2)
        shared = {"U": vectors[:, -self.rank :].flip(1).contiguous()}
        return shared, [self.fit(shared, {}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """V by least squares: the target's kernel in the shared directions."""
        wanted_on = times_inverse(target.cross_on, target.moment)
        return {"V": torch.linalg.lstsq(shared["U"], wanted_on, driver="gelsd").solution}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (shared["U"] @ adapter["V"]).view(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return two_factors(shared["U"], adapter["V"], shape)
