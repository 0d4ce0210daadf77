"""Scale the rows of a layer so that an error costs the loss the same in all of them.

Then one quantization step serves the whole kernel. G = E[g g^T], with g the loss's gradient at the layer's output
(analyze/moments.py), is the cost of its errors. The part of a row's cost that later rows cannot compensate
(feedback_rounding.py) is 1 / diagonal^2 of the Cholesky factor of G^-1; rows are scaled by its square root. The batch
normalization behind the layer stores a scale per channel anyway, so this takes no bytes (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...network.batch_norm import foldable_norms, norm_affine
from ...network.inference import device_of, evaluating
from ...network.trace import RunLayer
from .factors import factor_of
from .feedback_rounding import Feedback, feedback_of
from .grid import put_norm

# Damping of G, relative to its mean diagonal: gradients are noisy, coarse steps make errors that are not small, and no
# row may count as free of cost.
DAMPING = 0.1


@dataclass(frozen=True)
class RowCosts:
    """What errors in the rows of a layer cost.

    Attributes:
        cost_o: The loss per squared error of 1 in each row.
        feedback: How rows compensate one another's errors; None in layers with groups, where they do not.
    """

    cost_o: Tensor
    feedback: Feedback | None

    @property
    def scale_o(self) -> Tensor:
        """Factors for the rows after which an error costs the same in all, the mean of the costs before."""
        return (self.cost_o / self.cost_o.mean()).sqrt()

    @property
    def scaled(self) -> RowCosts:
        """The costs for rows multiplied by `scale_o`."""
        cost_o = torch.full_like(self.cost_o, float(self.cost_o.mean()))
        if self.feedback is None:
            return RowCosts(cost_o, None)
        scale_o = self.scale_o[self.feedback.order_n]
        upper_oo = self.feedback.upper_nn * scale_o / scale_o[:, None]
        diagonal_o = self.feedback.diagonal_n * scale_o
        return RowCosts(cost_o, replace(self.feedback, upper_nn=upper_oo, diagonal_n=diagonal_o))


def row_costs(gradient: Tensor) -> RowCosts | None:
    """The costs from a layer's `gradient` (analyze/moments.py); None if it is zero everywhere."""
    if float(gradient.abs().max()) <= 0:
        return None
    if gradient.ndim == 1:
        return RowCosts(gradient.double() + DAMPING * gradient.double().mean(), None)
    feedback = feedback_of(gradient, DAMPING)
    return RowCosts(feedback.diagonal_n[feedback.order_n.argsort()] ** -2, feedback)


def balance_rows(
    model: nn.Module, layers: Iterable[RunLayer], costs: Mapping[str, RowCosts], example: Tensor
) -> set[str]:
    """Scale the rows of layers that a batch normalization follows, in place; the net computes the same.

    Args:
        model: The net.
        layers: Its layers.
        costs: Row costs by layer.
        example: One input. A layer is left as it is if the output on it changes: something else reads the layer.

    Returns:
        The names of the scaled layers.
    """
    norms = foldable_norms(model)
    behind = {layer.name: str(layer.norm) for layer in layers if layer.norm in norms}
    scales = {name: costs[name].scale_o for name in behind if name in costs}
    before = _output(model, example)
    done = {name for name, scale_o in scales.items() if _scale(model, name, behind[name], scale_o)}
    if _same(before, _output(model, example)):
        return done
    for name in done:
        _scale(model, name, behind[name], 1 / scales[name])
    for name in sorted(done):
        _scale(model, name, behind[name], scales[name])
        if not _same(before, _output(model, example)):
            _scale(model, name, behind[name], 1 / scales[name])
            done.remove(name)
    return done


def _scale(model: nn.Module, name: str, norm: str, scale_o: Tensor) -> bool:
    """Multiply the rows and divide the normalization's scales; False if the layer cannot be scaled."""
    module: Any = model.get_submodule(name)
    factor, behind = factor_of(module), model.get_submodule(norm)
    gain_o, shift_o = norm_affine(behind)
    if factor is None or not len(factor.tensor) == len(gain_o) == len(scale_o):
        return False
    with torch.no_grad():
        factor.tensor.mul_(scale_o.to(factor.tensor).view(-1, *(1,) * (factor.tensor.ndim - 1)))
        if getattr(module, "bias", None) is not None:
            module.bias.mul_(scale_o.to(module.bias))
    put_norm(behind, gain_o / scale_o.to(gain_o), shift_o)
    return True


def _output(model: nn.Module, example: Tensor) -> Any:
    with evaluating(model), torch.no_grad():
        return model(example.to(device_of(model)))


def _same(before: Any, after: Any) -> bool:
    """Whether two outputs are equal up to rounding; False if they are not tensors."""
    if not isinstance(before, Tensor):
        return False
    return torch.allclose(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
