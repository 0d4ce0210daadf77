"""Tucker-2 with a shared input factor: a family shares one bank V; each member has its own core and mixing.

    W[o,i,s] ~ sum_pq U[o,p] G[p,q,s] V[q,i]          V (r x in) shared; G (r x r x taps), U (out x r) the adapter

Kim et al. 2016 (arXiv 1511.06530, Tucker-2 on the channel modes), its input factor shared by the layers and fitted to
data. Both channel ranks are one number: of cores at equal parameters the square one came within 3 % of the best at
every budget (docs/explanation/schemes.md).
Parameters: r in + sum(r out + r^2 taps). Folded, a member is an ordinary convolution. Factored (1x1, a full convolution
of r to r channels, 1x1), it takes r in + r^2 taps + r out multiply-adds per position. A 1x1 kernel has no core: for it
the scheme is the shared basis.
Loses by far to shared CP and the shared basis at 3x3, but not to low rank: they store no core, which has r^2 numbers
per tap for each layer, and only the smallest factor is shared. Its chain is the one that hardware runs best, with few
channels and no depthwise convolution, and at equal parameters it takes the fewest multiply-adds.

Fit: V starts from the channels that the kernels read most under the mean moment, G from the best output directions of
each kernel seen through V. Then variable projection over V and G, with U in closed form (projection.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

import torch
from torch import Tensor

from ..core.linalg import Target, kronecker, mean_diagonal, mix, search_target, times
from ..core.specs import Layout, Shape, SymbolicShape, product
from .basis import Basis, leading_rows
from .projection import mixing, search
from .scheme import Scheme, Tensors


@dataclass(frozen=True)
class Tucker(Scheme):
    """Options: `rank`, of both the inputs and the outputs."""

    rank: int = 0

    name: ClassVar[str] = "tucker"
    size: ClassVar[str] = "rank"

    def group(self, shape: Shape) -> Hashable:
        return shape[1], product(shape[2:])

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The rank at which the family stores as much as its dense kernels: a r^2 + b r <= dense."""
        a = sum(_core_taps(shape) for shape in shapes)
        b = shapes[0][1] + sum(shape[0] for shape in shapes)
        dense = sum(map(product, shapes))
        return max(1, (isqrt(b * b + 4 * a * dense) - b) // (2 * a) if a else dense // b)

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, SymbolicShape]:
            core: dict[str, SymbolicShape] = {"G": ("rank", "rank", *shape[2:])} if _core_taps(shape) else {}
            return {"U": (shape[0], "rank"), **core}

        return Layout({"V": ("rank", shapes[0][1])}, tuple(map(adapter, shapes)))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        core = _core_taps(shape)
        pointwise_in = in_positions if core else out_positions
        return self.rank * (shape[1] * pointwise_in + (self.rank * core + shape[0]) * out_positions)

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        if not _core_taps(targets[0].shape):
            return Basis(self.rank).share(targets, seed=seed, sweeps=sweeps)

        def rows(point: Sequence[Tensor], member: int) -> Tensor:
            return _rows(point[0], point[member + 1])

        generator = torch.Generator().manual_seed(seed)
        bank_ri = _leading_channels(targets, self.rank, generator)
        cores = [_leading_core(bank_ri, search_target(target), generator) for target in targets]
        bank_ri, *cores = search(rows, [bank_ri, *cores], targets, sweeps)
        shared = {"V": bank_ri}
        adapters = [{"G": core.view(*core.shape[:2], *t.shape[2:])} for core, t in zip(cores, targets, strict=True)]
        return shared, [self.fit(shared, adapter, target) for adapter, target in zip(adapters, targets, strict=True)]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        """U by least squares on the member's rows G V."""
        return {**adapter, "U": mixing(_member_rows(shared["V"], adapter), target)}

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        return (adapter["U"] @ _member_rows(shared["V"], adapter)).view(shape)

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        ones = (1,) * len(shape[2:])
        chain = [tensor.view(*tensor.shape, *ones) for tensor in (shared["V"], adapter["U"])]
        return [chain[0], adapter["G"], chain[1]] if "G" in adapter else chain


def _core_taps(shape: Shape) -> int:
    """The taps of the core: 0 for a single tap, which has no core."""
    taps = product(shape[2:])
    return taps if taps > 1 else 0


def _rows(bank_qi: Tensor, core_pqs: Tensor) -> Tensor:
    return torch.einsum("pqs,qi->pis", core_pqs, bank_qi).flatten(1)


def _member_rows(bank_ri: Tensor, adapter: Tensors) -> Tensor:
    return _rows(bank_ri, adapter["G"].flatten(2)) if "G" in adapter else bank_ri


def _leading_channels(targets: Sequence[Target], rank: int, generator: torch.Generator) -> Tensor:
    """The input directions with most of the kernels' output energy, then random ones: (rank, in)."""
    channels = targets[0].shape[1]
    slices = []
    for target in targets:
        kernel_ois = target.kernel_on.view(len(target.kernel_on), channels, -1)
        moment = target.moment if isinstance(target.moment, tuple) else kronecker(target.moment, channels)
        by_tap = kernel_ois.transpose(1, 2).flatten(0, 1)
        slices.append(Target(target.shape, by_tap, by_tap, moment.channels_cc, target.weight * mean_diagonal(moment)))
    leading_ri = leading_rows(slices, min(rank, channels))
    spare = torch.randn(rank - len(leading_ri), channels, generator=generator, dtype=torch.float64)
    return torch.cat([leading_ri, spare / channels**0.5])


def _leading_core(bank_ri: Tensor, target: Target, generator: torch.Generator) -> Tensor:
    """The r best output directions of the kernel seen through the bank, then random ones: (rank, rank, taps)."""
    taps, rank = product(target.shape[2:]), len(bank_ri)
    eye_tt = torch.eye(taps, dtype=torch.float64)
    through_mn = torch.kron(bank_ri, eye_tt)  # m = (rank, tap)
    gram_mm = times(through_mn, target.moment) @ through_mn.T
    seen_om = mix(gram_mm, target.cross_on @ through_mn.T)
    _, vectors = torch.linalg.eigh(seen_om @ gram_mm @ seen_om.T)
    core_pm = vectors[:, -rank:].T @ seen_om
    size = core_pm.norm(dim=1, keepdim=True)
    spare = torch.randn(rank - len(core_pm), rank * taps, generator=generator, dtype=torch.float64)
    unit = torch.where(size > 0, core_pm / size.clamp_min(1e-300), torch.eye(*core_pm.shape, dtype=torch.float64))
    return torch.cat([unit, spare / (rank * taps) ** 0.5]).view(rank, rank, taps)
