"""What an error in each row of a layer costs the loss, and rows scaled so that it costs the same in all.

One step does for a whole kernel. G = E[g g^T], g the gradient at the layer's output (statistics.py), says what the
loss feels of its errors; of a row's, what those after it cannot make up for (rounding.py) is 1 / diag^2 of the Cholesky
factor of G^-1. Rows times the root of that all cost alike. A batch normalisation behind the layer stores a scale a
channel in any case, so that this takes no bytes (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...network.blocks import Block
from ...network.inference import device_of, evaluating
from ...network.norms import foldable_norms, norm_affine
from .factors import factor_of
from .grid import put_norm
from .rounding import Feedback, feedback

# Of the mean diagonal of G: gradients are noisy, errors of coarse steps not small, and no row is one that the loss does
# not feel at all.
DAMPING = 0.1


@dataclass(frozen=True)
class Rows:
    """`cost_o`, what the loss makes of a squared error of one in each row, and how rows make up for one another.

    `how` is None where they do not, in layers with groups.
    """

    cost_o: Tensor
    how: Feedback | None

    @property
    def scale_o(self) -> Tensor:
        """Times these, an error costs the same in all rows, the mean of what it did."""
        return (self.cost_o / self.cost_o.mean()).sqrt()

    @property
    def scaled(self) -> Rows:
        """The same for rows times `scale_o`."""
        cost_o = torch.full_like(self.cost_o, float(self.cost_o.mean()))
        if self.how is None:
            return Rows(cost_o, None)
        scale_o = self.scale_o[self.how.order_n]
        upper_oo = self.how.upper_nn * scale_o / scale_o[:, None]
        return Rows(cost_o, replace(self.how, upper_nn=upper_oo, diagonal_n=self.how.diagonal_n * scale_o))


def rows_of(felt: Tensor) -> Rows | None:
    """From a layer's `felt` (statistics.py); None where the loss feels nothing of it."""
    if float(felt.abs().max()) <= 0:
        return None
    if felt.ndim == 1:
        return Rows(felt.double() + DAMPING * felt.double().mean(), None)
    how = feedback(felt, DAMPING)
    return Rows(how.diagonal_n[how.order_n.argsort()] ** -2, how)


def even_rows(model: nn.Module, blocks: Iterable[Block], rows: Mapping[str, Rows], example: Tensor) -> set[str]:
    """Scale the rows of layers that a batch normalisation follows, in place; what the net computes stays.

    Returns the names of those that could be: not where the `example` input shows that something else reads the output.
    """
    norms = foldable_norms(model)
    behind = {layer.name: str(layer.norm) for block in blocks for layer in block.layers if layer.norm in norms}
    scales = {name: rows[name].scale_o for name in behind if name in rows}
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
    """Rows times these factors, the normalisation's scales divided by them. Whether that could be done."""
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
    """Whether two outputs are equal but for rounding; no, where they are not tensors."""
    if not isinstance(before, Tensor):
        return False
    return torch.allclose(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
