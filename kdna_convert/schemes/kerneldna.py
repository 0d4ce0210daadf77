"""KernelDNA's static modulation: a child is its family's parent, scaled by filter, by tap and optionally by channel.

    W[o,i,s] ~ P[o,i,s] (1 + f[o]) (1 + s[s]) (1 + c[i])  +  sum_q A[o,q] B[q,(i,s)]

P shared; f (out), s (taps), optional c (in) and the optional low-rank residual A B the member's adapter (arXiv
2503.23379, section 3; the channel vector is the static part of its input gate).
Parameters of a child: out + taps (+ in) (+ r (out + n)). Only kernels of one shape share. No factored form: MACs do not
change.

A pretrained kernel is not close to any such child: two independent kernels leave 99.8 % of the error. So this scheme
loses to every other before the fine-tune and depends on it; the residual rank improves accuracy at the price of low
rank. A fit shrinks what it cannot explain towards zero, which can be worse than the tied parent: `start: best` tries
all three starts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..core.linalg import TINY, Kronecker, Moment, Target, mix, search_target, times
from ..core.specs import Layout, Options, Shape, product
from .basis import leading_rows
from .scheme import Scheme, Tensors

ALTERNATIONS = 60


@dataclass(frozen=True)
class KernelDna(Scheme):
    """Options: `parent` (the family's medoid, or fitted), `start`, `channel` (adds c), `residual_rank` (adds A B)."""

    parent: Literal["medoid", "fitted"] = "medoid"
    start: Literal["best", "tie", "lstsq", "norm"] = "best"
    channel: bool = False
    residual_rank: int = 0

    name: ClassVar[str] = "kerneldna"
    size: ClassVar[str] = "residual_rank"
    smallest: ClassVar[int] = 0

    def variants(self) -> tuple[Options, ...]:
        if self.start != "best":
            return ({},)
        return {"start": "tie"}, {"start": "lstsq"}, {"start": "norm"}

    def group(self, shape: Shape) -> Hashable:
        return shape

    def limit(self, shapes: Sequence[Shape]) -> int:
        """The residual rank at which the family stores as much as its dense kernels."""
        shape, members = shapes[0], len(shapes)
        modulation = sum(map(product, _modulation(shape, self.channel).values()))
        saved = (members - 1) * product(shape) - members * modulation
        return max(0, saved // (members * (shape[0] + product(shape[1:]))))

    def layout(self, shapes: Sequence[Shape]) -> Layout:
        def adapter(shape: Shape) -> dict[str, tuple[int | str, ...]]:
            residual: dict[str, tuple[int | str, ...]] = {
                "A": (shape[0], "residual_rank"),
                "B": ("residual_rank", product(shape[1:])),
            }
            return {**_modulation(shape, self.channel), **residual}

        return Layout({"P": shapes[0]}, tuple(map(adapter, shapes)))

    def macs(self, shape: Shape, in_positions: int, out_positions: int) -> int:
        return product(shape) * out_positions

    def share(self, targets: Sequence[Target], *, seed: int, sweeps: int) -> tuple[Tensors, list[Tensors]]:
        parent = _medoid(targets)
        if self.parent == "fitted":
            parent = _fitted_parent(targets, parent, self.channel)
        shared = {"P": parent}
        return shared, [self.fit(shared, {}, target) for target in targets]

    def fit(self, shared: Tensors, adapter: Tensors, target: Target) -> Tensors:
        scales = _unit_scales(target.shape, self.channel)
        if self.start != "tie":
            scales = _fit_scales(shared["P"], target, scales)
        if self.start == "norm":
            child_on = _scaled(shared["P"], scales).flatten(1)
            energy_o = (target.cross_on * target.kernel_on).sum(1)
            reached = (times(child_on, target.moment) * child_on).sum(1)
            scales["f"] = scales["f"] * (energy_o / reached.clamp_min(1e-30)).clamp(1e-4, 1e4).sqrt()
        adapter = {name: scale - 1 for name, scale in scales.items()}
        if self.residual_rank:
            adapter |= _residual(target, _scaled(shared["P"], scales).flatten(1), self.residual_rank)
        return adapter

    def expand(self, shared: Tensors, adapter: Tensors, shape: Shape) -> Tensor:
        """A member without an adapter is the parent itself, as in the release's own layouts."""
        kernel = _scaled(shared["P"], {name: 1 + adapter[name] for name in ("f", "s", "c") if name in adapter})
        return kernel + (adapter["A"] @ adapter["B"]).view(shape) if "A" in adapter else kernel

    def factors(self, shared: Tensors, adapter: Tensors, shape: Shape) -> list[Tensor] | None:
        return None


def _modulation(shape: Shape, channel: bool) -> dict[str, Shape]:
    """The shapes of a child's scales: f by filter, s by tap if there are several, c by channel if `channel` is set."""
    scales = {"f": (shape[0],), "s": shape[2:], "c": (shape[1],)}
    return {k: v for k, v in scales.items() if k == "f" or (k == "s" and product(v) > 1) or (k == "c" and channel)}


def _unit_scales(shape: Shape, channel: bool) -> Tensors:
    return {k: torch.ones(v, dtype=torch.float64) for k, v in _modulation(shape, channel).items()}


def _scaled(parent: Tensor, scales: Tensors) -> Tensor:
    ones = (1,) * (parent.ndim - 2)
    kernel = parent * scales["f"].view(-1, 1, *ones) if "f" in scales else parent
    if "s" in scales:
        kernel = kernel * scales["s"]
    return kernel * scales["c"].view(1, -1, *ones) if "c" in scales else kernel


def _medoid(targets: Sequence[Target]) -> Tensor:
    """The kernel that is closest to all others by weight cosine."""
    stacked = torch.stack([target.kernel_on.flatten() for target in targets])
    stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-30)
    chosen = targets[int((stacked @ stacked.T).abs().sum(1).argmax())]
    return chosen.kernel_on.view(chosen.shape)


def _fitted_parent(targets: Sequence[Target], parent: Tensor, channel: bool) -> Tensor:
    """Fit parent and scales in turn. Each entry of the parent is the weighted least squares of the members' entries."""
    for _ in range(5):
        total, norm = torch.zeros_like(parent), torch.zeros_like(parent)
        for target in targets:
            scales = _fit_scales(parent, target, _unit_scales(target.shape, channel))
            scale = _scaled(torch.ones_like(parent), scales)
            share = 1 / max(target.energy, TINY)
            total += share * scale * target.kernel_on.view(target.shape)
            norm += share * scale**2
        parent = total / norm.clamp_min(1e-12 * float(norm.max()) + TINY)
    return parent


def _fit_scales(parent: Tensor, target: Target, scales: Tensors) -> Tensors:
    """Alternating exact least squares in each of f, s and c, in the metric of the target, to convergence.

    A long patch uses the Kronecker form of its moment. Its f is then solved with the full moment.
    """
    searched, last = search_target(target), -float("inf")
    ones = torch.ones(1, dtype=torch.float64), torch.ones(target.shape[1], dtype=torch.float64)
    for _ in range(ALTERNATIONS):
        scales, explained = _fit_filters(parent, searched, scales)
        filtered_ois = (parent.flatten(1) * scales["f"][:, None]).view(*parent.shape[:2], -1)
        pull_is = (filtered_ois * searched.cross_on.view_as(filtered_ois)).sum(0)
        taps, channel = scales.get("s", ones[0]).flatten(), scales.get("c", ones[1])
        if "s" in scales:
            normal_ss = _between_taps(filtered_ois * channel[:, None], searched.moment)
            # The default driver's last bits depend on where the tensors lie in memory.
            taps = torch.linalg.lstsq(normal_ss, pull_is.T @ channel, driver="gelsd").solution
            scales = scales | {"s": taps.view(target.shape[2:])}
        if "c" in scales:
            normal_cc = _between_channels(filtered_ois * taps, searched.moment)
            scales = scales | {"c": mix(normal_cc, (pull_is @ taps)[None])[0]}
        if explained - last <= 1e-11 * target.energy:
            break
        last = explained
    return _fit_filters(parent, target, scales)[0]


def _fit_filters(parent: Tensor, target: Target, scales: Tensors) -> tuple[Tensors, float]:
    """f by least squares, each filter alone, and the output energy that it explains."""
    inner_on = _scaled(parent, scales | {"f": torch.ones_like(scales["f"])}).flatten(1)
    norm_o = (times(inner_on, target.moment) * inner_on).sum(1)
    pull_o = (target.cross_on * inner_on).sum(1)
    filters = pull_o / norm_o.clamp_min(1e-12 * float(norm_o.max()) + TINY)
    return scales | {"f": filters}, float((filters * pull_o).sum())


def _between_taps(kernel_ois: Tensor, moment: Moment) -> Tensor:
    """A[s,t] = sum_o k_os C k_ot, k_os the kernel of filter o with tap s alone."""
    if isinstance(moment, Kronecker):
        seen_ojs = torch.einsum("ois,ij->ojs", kernel_ois, moment.channels_cc)
        return torch.einsum("ojs,ojt->st", seen_ojs, kernel_ois) * moment.taps_tt
    return torch.einsum("isjt->st", _between_entries(kernel_ois, moment))


def _between_channels(kernel_ois: Tensor, moment: Moment) -> Tensor:
    """A[i,j] = sum_o k_oi C k_oj, k_oi the kernel of filter o with channel i alone."""
    if isinstance(moment, Kronecker):
        seen_ois = kernel_ois @ moment.taps_tt
        return (seen_ois.transpose(0, 1).flatten(1) @ kernel_ois.transpose(0, 1).flatten(1).T) * moment.channels_cc
    return torch.einsum("isjt->ij", _between_entries(kernel_ois, moment))


def _between_entries(kernel_ois: Tensor, moment_nn: Tensor) -> Tensor:
    kernel_on = kernel_ois.flatten(1)
    pairs_nn = (kernel_on.T @ kernel_on) * moment_nn
    return pairs_nn.view(*kernel_ois.shape[1:], *kernel_ois.shape[1:])


def _residual(target: Target, child_on: Tensor, rank: int) -> Tensors:
    """The best rank-r fit of the residual of the scaled parent, in the target's metric."""
    gap_on = target.kernel_on - child_on
    left = replace(target, kernel_on=gap_on, cross_on=times(gap_on, target.moment), weight=1.0)
    rows_rn = leading_rows([left], rank)
    rows_c_rn = times(rows_rn, target.moment)
    return {"A": mix(rows_c_rn @ rows_rn.T, gap_on @ rows_c_rn.T), "B": rows_rn}
