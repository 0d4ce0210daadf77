"""A net's tensors put on their grids layer by layer, each making up for the errors of those before it.

For every layer in the order of execution: its least-squares problem behind the coded prefix, towards the original's
outputs (prefix.py); its kernel, or the last factor of it, solved for and rounded with error feedback (rounding.py);
then the shift of its normalisation, or its bias, set so that the mean output is right, and rounded too. What no walk
reaches is rounded as it is.

How fine: one number `delta` for the whole net. A step is such that each integer of a layer does the loss the same
expected harm, delta^2 / 12: delta x spread / sqrt(sensitivity), in the units of the layer's inputs and outputs.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...codecs.steps import nearest_step, scale_integers, scale_values
from ...core.linalg import Moment, damp, dense, mix
from ...core.specs import product
from ...network.blocks import BlockLayer
from ...network.derive import Derived
from ...network.norms import foldable_norms, norm_affine
from ...network.walk import BlockPair, LayerProblem, layer_problem, match_mean
from ..analyze.moments import Moments
from ..repair.nets import Nets, Tick
from .factors import Factor, Member, balance_banks, factor_of, round_banks
from .grid import put_integers, put_norm, put_on_grid, put_shift
from .rounding import Feedback, feedback, round_fed
from .rows import Rows, even_rows, rows_of

# How strongly a kernel is held where it was, relative to the mean second moment of its inputs: always, for what float32
# sums leave wrong, and the more, the fewer patches there are to each of its columns.
RIDGE, TRUST = 1e-4, 0.08
# A shift is wrong everywhere at once, where the errors of weights differ from place to place: it is kept finer.
SHIFT = 0.5
# A row's scale, which its normalisation takes back, goes up to the root of the rows (rows.py): 64 for 4,096 of them.
_LARGEST_RATIO, _LEAST_STEP = 64.0, 1e-30


# How a net is rounded: `nearest`, to see how large it gets; `alone`, with error feedback; `walked`, as said above.
Manner = Literal["nearest", "alone", "walked"]


@dataclass(frozen=True)
class Felt:
    """What each layer sees and how much the loss feels its output; `mean` stands in for layers without a figure.

    Remembered by name: what errors cost in the `rows` of layers as they are coded (rows.py), the `spreads` of last
    factors' moments (rounding.py), and those of `banks` (factors.py).
    """

    moments: Moments
    plain: dict[str, Rows]
    mean: float
    rows: dict[str, Rows] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    banks: dict[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """What the loss makes of an error of one in an output of the layer."""
        return float(self.plain[name].cost_o.mean()) if name in self.plain else self.mean

    def across(self, name: str) -> Feedback | None:
        """How the layer's rows make up for one another's errors."""
        return self.rows[name].how if name in self.rows else None

    def member(self, name: str, derived: Derived) -> Member:
        return Member(name, derived, self.moment(name, product(derived.shape[1:])), self.of(name))

    def moment(self, name: str, patch: int) -> Moment:
        """Its second moment, damped; the identity where none was taken."""
        if name not in self.moments:
            return torch.eye(patch, dtype=torch.float64)
        return damp(self.moments[name].second)


def felt_by(moments: Moments) -> Felt:
    known = {name: rows for name, seen in moments.items() if (rows := rows_of(seen.gradient)) is not None}
    costs = [math.log(float(rows.cost_o.mean())) for rows in known.values()]
    return Felt(moments, known, math.exp(sum(costs) / len(costs)) if costs else 1.0)


def balanced(nets: Nets, felt: Felt) -> Nets:
    """The same with a converted net ready to be rounded: rows (rows.py), then banks (factors.py); its outputs stay."""
    converted = copy.deepcopy(nets.converted)
    even = even_rows(converted, nets.blocks, felt.plain, nets.batches[0][:1])
    felt.rows.update({name: rows.scaled if name in even else rows for name, rows in felt.plain.items()})
    felt.banks.update(balance_banks(converted, felt.member))
    return replace(nets, converted=converted)


def code_net(nets: Nets, felt: Felt, delta: float, manner: Manner, tick: Tick) -> tuple[nn.Module, dict[str, int]]:
    """A copy of `nets.converted`, which is balanced, with its layers and normalisations on their grids, and the numbers
    of their steps by name.

    `nets.original` is what its outputs are brought near to, where they are `walked`.
    """
    coded = copy.deepcopy(nets.converted)
    for norm in foldable_norms(coded).values():
        scale, shift = norm_affine(norm)
        put_norm(norm, scale_values(*scale_integers(scale)), shift)
    steps = round_banks(coded, felt.banks, delta)
    behind = set() if manner != "walked" else _reached(nets)
    for layer in nets.layers:
        if layer.name not in behind:
            _round_alone(coded.get_submodule(layer.name), layer.name, felt, delta, manner, steps)
    if behind:
        for pair in replace(nets, converted=coded).pairs(0, tick):
            for member in pair.block.layers:
                if member.name in behind:
                    _code_layer(pair, member, felt, delta, steps)
    for name in foldable_norms(coded):
        if name not in steps:
            _round_shift(coded, name, delta / math.sqrt(felt.mean), steps)
    return coded, steps


def _reached(nets: Nets) -> set[str]:
    """The layers that a walk meets and whose kernel is one least-squares problem."""
    return {layer.name for block in nets.blocks for layer in block.layers if nets.refusal(layer.name) is None}


def _code_layer(pair: BlockPair, layer: BlockLayer, felt: Felt, delta: float, steps: dict[str, int]) -> None:
    """Solve for one layer behind the coded prefix and round it, in place, and its shift or bias."""
    problem, fineness = layer_problem(pair, layer), delta / math.sqrt(felt.of(layer.name))
    module: Any = pair.converted.get_submodule(layer.name)
    factor = factor_of(module)
    if factor is not None:
        steps[f"{layer.name}.{factor.letter}"] = _fit(
            factor, problem, _towards(pair, layer, problem), fineness, felt.across(layer.name)
        )
    match_mean(pair, layer, problem)
    if layer.norm in foldable_norms(pair.converted):
        _round_shift(pair.converted, str(layer.norm), fineness, steps)
    elif layer.norm is None and module.bias is not None:
        steps[f"{layer.name}.bias"] = number = nearest_step(fineness * SHIFT)
        put_on_grid(module.bias, number)


def _towards(pair: BlockPair, layer: BlockLayer, problem: LayerProblem) -> Tensor:
    """The layer's cross moment, made up for what the scale of its normalisation has moved by."""
    if layer.norm is None:
        return problem.cross_on
    (scale0_o, _), (scale_o, _) = (
        norm_affine(net.get_submodule(layer.norm)) for net in (pair.original, pair.converted)
    )
    ratio_o = (scale0_o / scale_o).nan_to_num(1.0).clamp(-_LARGEST_RATIO, _LARGEST_RATIO)
    return problem.cross_on * ratio_o.to(problem.cross_on)[:, None]


def _round_shift(coded: nn.Module, name: str, fineness: float, steps: dict[str, int]) -> None:
    """Round a normalisation's shifts, in place: as finely as its input, times its scale."""
    norm = coded.get_submodule(name)
    size = float(norm_affine(norm)[0].square().mean().sqrt())
    steps[name] = number = nearest_step(max(fineness * SHIFT * size, _LEAST_STEP))
    put_shift(norm, number)


def _fit(factor: Factor, problem: LayerProblem, cross_on: Tensor, fineness: float, rows: Feedback | None) -> int:
    """Solve for a factor and round it with error feedback, in place. Returns its step's number."""
    seen_kk = factor.seen(problem.moment_nn)
    whole = seen_kk.diagonal().mean() + factor.seen(problem.mean_n[:, None] * problem.mean_n).diagonal().mean()
    # Nothing is known of what a layer sees that sees nothing: then its kernel stays as it is.
    ridge = (RIDGE + TRUST * len(seen_kk) / problem.count) * float(whole) or 1.0
    seen_kk = seen_kk + ridge * torch.eye(len(seen_kk), dtype=torch.float64)
    cross_ok = cross_on if factor.rows_kn is None else cross_on @ factor.rows_kn.T
    solved_ok = mix(seen_kk, cross_ok + ridge * factor.values_ok)
    how = feedback(seen_kk)
    number = nearest_step(fineness * how.spread)
    put_integers(factor.tensor, round_fed(solved_ok, number, how, rows), number)
    return number


def _round_alone(module: Any, name: str, felt: Felt, delta: float, manner: Manner, steps: dict[str, int]) -> None:
    """Round a layer for itself, in place, on what it sees without any error."""
    factor, fineness = factor_of(module), delta / math.sqrt(felt.of(name))
    if getattr(module, "bias", None) is not None:
        steps[f"{name}.bias"] = number = nearest_step(fineness * SHIFT)
        put_on_grid(module.bias, number)
    if factor is None:
        return
    known = f"{name}.{factor.letter}"
    if manner == "nearest" and known in felt.spreads:
        steps[known] = nearest_step(fineness * felt.spreads[known])
        put_on_grid(factor.tensor, steps[known])
        return
    how = feedback(factor.seen(dense(felt.moment(name, factor.patch))))
    felt.spreads[known] = how.spread
    steps[known] = number = nearest_step(fineness * how.spread)
    put_integers(factor.tensor, round_fed(factor.values_ok, number, how, felt.across(name)), number)
