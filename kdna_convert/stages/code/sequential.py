"""Quantize a net layer by layer; each layer compensates the errors of those before it.

For every layer in the order of execution: take its least-squares problem behind the coded prefix, towards the outputs
of the original (network/walk.py); solve for its kernel, or the last factor of it, and round with error feedback
(feedback_rounding.py); match the mean of the output in the shift of the normalization or in the bias, and round that
too. Layers that the walk does not reach are rounded as they are.

One number `delta` sets the steps of the whole net. The step of a layer is delta x spread / sqrt(cost), in the units of
its inputs and outputs, so that every integer costs the loss the same, delta^2 / 12. It is corrected by a few percent on
the way, so that one walk meets a size (estimated_sizes.py).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from ...codecs.quantization_steps import nearest_step, scale_integers, scale_values
from ...core.linalg import dense, mix
from ...network.batch_norm import foldable_norms, norm_affine
from ...network.walk import LayerProblem, Stop, layer_problem, match_mean
from ..repair.net_pair import BlockProgress, NetPair
from .estimated_sizes import Pace
from .factors import Factor, balance_banks, factor_of, round_banks
from .feedback_rounding import feedback_of, round_with_feedback
from .grid import put_integers, put_norm, put_on_grid, put_shift
from .row_costs import balance_rows
from .sensitivity import Sensitivity

# How strongly a kernel is held where it was, relative to the mean second moment of its inputs: a constant part for the
# error of float32 sums, and a part that grows with the number of columns per patch.
RIDGE, TRUST = 1e-4, 0.08
# The step of a shift, relative to that of weights: a shift is wrong at every position at once, so it is finer.
SHIFT = 0.5
# A row's scale, which its normalization takes back, is at most the root of the number of rows: 64 for 4,096.
_LARGEST_RATIO, _LEAST_STEP = 64.0, 1e-30

# How layers are rounded: to the `nearest` multiple, for an estimate of the size; each `separate` from the others, with
# error feedback; or `sequential`, as described above.
Rounding = Literal["nearest", "separate", "sequential"]


def balance(nets: NetPair, sensitivity: Sensitivity) -> NetPair:
    """The same nets with the rows (row_costs.py) and banks (factors.py) of the converted one balanced for rounding.

    The converted net computes the same. What was found is stored in `sensitivity`.
    """
    converted = copy.deepcopy(nets.converted)
    scaled = balance_rows(converted, nets.run_layers, sensitivity.costs, nets.batches[0][:1])
    sensitivity.balanced.update(
        {name: costs.scaled if name in scaled else costs for name, costs in sensitivity.costs.items()}
    )
    sensitivity.banks.update(balance_banks(converted, sensitivity.member))
    return replace(nets, converted=converted)


def code_net(
    nets: NetPair, sensitivity: Sensitivity, pace: Pace, rounding: Rounding, progress: BlockProgress
) -> tuple[nn.Module, dict[str, int]]:
    """Quantize a copy of `nets.converted`.

    Args:
        nets: Balanced nets. With sequential rounding the outputs of `nets.original` are the target.
        sensitivity: What errors cost.
        pace: The step of the net.
        rounding: How layers are rounded.
        progress: Called after every layer, with sequential rounding.

    Returns:
        The quantized net, and the numbers of its steps by the stored name of the tensor.
    """
    model = copy.deepcopy(nets.converted)
    for norm in foldable_norms(model).values():
        scale, shift = norm_affine(norm)
        put_norm(norm, scale_values(*scale_integers(scale)), shift)
    coder = _LayerCoder(model, sensitivity, pace, round_banks(model, sensitivity.banks, pace.delta))
    reached = _reached(nets, sensitivity) if rounding == "sequential" else set()
    for layer in sorted(nets.layers, key=lambda layer: not sensitivity.knows(layer.name)):
        if layer.name not in reached:
            coder.round_separately(layer.name, feedback=rounding != "nearest" and sensitivity.knows(layer.name))
    if reached:
        for stop in replace(nets, converted=model).walk(0, progress):
            if stop.layer.name in reached:
                coder.solve_and_round(stop)
    for name in foldable_norms(model):
        if name not in coder.steps:
            coder.round_shift(name, pace.delta / math.sqrt(sensitivity.mean))
    return model, coder.steps


def _reached(nets: NetPair, sensitivity: Sensitivity) -> set[str]:
    """The layers that the walk reaches, whose kernel is one least-squares problem that fits into memory."""
    reached = [layer.name for layer in nets.run_layers if nets.refusal(layer.name) is None]
    return {name for name in reached if sensitivity.knows(name)}


@dataclass(frozen=True)
class _LayerCoder:
    """A net that is quantized in place, and the numbers of its `steps` by stored name."""

    model: nn.Module
    sensitivity: Sensitivity
    pace: Pace
    steps: dict[str, int] = field(default_factory=dict)

    def solve_and_round(self, stop: Stop) -> None:
        """Solve for one layer behind the coded prefix and round it and its shift or bias."""
        name, module = stop.layer.name, cast("Any", stop.module)
        problem, unit = layer_problem(stop), self._unit(name)
        factor = factor_of(module)
        if factor is not None:
            self._solve_factor(name, factor, problem, _scaled_cross(stop, problem))
        match_mean(stop, problem)
        if stop.layer.norm in foldable_norms(stop.converted):
            self.round_shift(str(stop.layer.norm), unit)
        elif stop.layer.norm is None and module.bias is not None:
            self._round_bias(name, module, unit)

    def round_separately(self, name: str, *, feedback: bool) -> None:
        """Round one layer on the inputs that it has in the original net.

        Without `feedback`, to the nearest multiple as soon as the spread of the layer is known. A layer without a
        moment takes the typical one.
        """
        module: Any = self.model.get_submodule(name)
        factor, unit = factor_of(module), self._unit(name)
        if getattr(module, "bias", None) is not None:
            self._round_bias(name, module, unit)
        if factor is None:
            return
        stored, spreads = f"{name}.{factor.letter}", self.sensitivity.spreads
        if not self.sensitivity.knows(name):
            spreads.setdefault(stored, self.sensitivity.typical_spread)
        if not feedback and stored in spreads:
            self.steps[stored] = nearest_step(unit * spreads[stored])
            put_on_grid(factor.tensor, self.steps[stored])
            return
        columns = feedback_of(factor.input_moment(dense(self.sensitivity.moment(name, factor.patch))))
        spreads[stored] = columns.spread
        self.steps[stored] = number = nearest_step(unit * columns.spread)
        rows = self.sensitivity.row_feedback(name)
        put_integers(factor.tensor, round_with_feedback(factor.values_ok, number, columns, rows), number)

    def round_shift(self, name: str, unit: float) -> None:
        """Round a normalization's shifts: as finely as its input, times its scale."""
        norm = self.model.get_submodule(name)
        size = float(norm_affine(norm)[0].square().mean().sqrt())
        self.steps[name] = number = nearest_step(max(unit * SHIFT * size, _LEAST_STEP))
        put_shift(norm, number)

    def _unit(self, name: str) -> float:
        """The step of a layer per unit of spread."""
        return self.pace.delta / math.sqrt(self.sensitivity.cost(name))

    def _round_bias(self, name: str, module: Any, unit: float) -> None:
        self.steps[f"{name}.bias"] = number = nearest_step(unit * SHIFT)
        put_on_grid(module.bias, number)

    def _solve_factor(self, name: str, factor: Factor, problem: LayerProblem, cross_on: Tensor) -> None:
        """Solve for a factor and round it with error feedback."""
        moment_kk = factor.input_moment(problem.moment_nn)
        mean_k = problem.mean_n if factor.rows_kn is None else factor.rows_kn @ problem.mean_n
        size = float(moment_kk.diagonal().mean() + mean_k.square().mean())
        # A layer whose inputs are all zero keeps its kernel.
        ridge = (RIDGE + TRUST * len(moment_kk) / problem.count) * size or 1.0
        moment_kk = moment_kk.clone()
        moment_kk.diagonal().add_(ridge)
        cross_ok = cross_on if factor.rows_kn is None else cross_on @ factor.rows_kn.T
        solved_ok = mix(moment_kk, cross_ok + ridge * factor.values_ok)
        columns, rows = feedback_of(moment_kk), self.sensitivity.row_feedback(name)
        self.steps[f"{name}.{factor.letter}"] = number = nearest_step(self._unit(name) * columns.spread)
        integers = round_with_feedback(solved_ok, number, columns, rows)
        put_integers(factor.tensor, integers, number)
        self.pace.coded(f"{name}.{factor.letter}", integers)


def _scaled_cross(stop: Stop, problem: LayerProblem) -> Tensor:
    """The layer's cross moment, scaled by how much the scale of its normalization has changed."""
    norm = stop.layer.norm
    if norm is None:
        return problem.cross_on
    (scale0_o, _), (scale_o, _) = (norm_affine(net.get_submodule(norm)) for net in (stop.original, stop.converted))
    ratio_o = (scale0_o / scale_o).nan_to_num(1.0).clamp(-_LARGEST_RATIO, _LARGEST_RATIO)
    return problem.cross_on * ratio_o.to(problem.cross_on)[:, None]
