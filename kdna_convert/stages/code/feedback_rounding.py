"""Round a matrix to integers with error feedback into the columns and rows that are still to be rounded.

For y = W u the cost of an error E is tr(E C E^T), C = E[u u^T]. Once a column is rounded, the later columns compensate
best by the error times a row of the Cholesky factor of C^-1 (Optimal Brain Surgeon, Hassibi and Stork 1993; in the
order of GPTQ, arXiv 2210.17323). With C^-1 = R^T R, R upper triangular, the uncompensated part of column i's rounding
error is that error over R[i,i]: this sets the step.

With G the second moment of the loss's gradient at the outputs, the cost is tr(G E C E^T), and the same holds from row
to row (arXiv 2505.22988, section 4). With both, a number first moves by the feedback of the rows before it, then by
that of its own row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...codecs.quantization_steps import step_of
from ...core.linalg import inverse_factor

# Damping of a moment, relative to its mean diagonal: directions that no image showed must not carry errors.
DAMPING = 1e-3
# Columns rounded one by one before their errors are fed forward together, as one matrix product.
_BLOCK = 48


@dataclass(frozen=True)
class Feedback:
    """How the columns or the rows of a matrix are rounded.

    Attributes:
        order_n: Their order, the largest first.
        upper_nn: The Cholesky factor in that order, scaled to a unit diagonal.
        diagonal_n: The diagonal it had. A step d in column i leaves an error of d^2 / (12 diagonal_i^2) per output.
    """

    order_n: Tensor
    upper_nn: Tensor
    diagonal_n: Tensor

    @property
    def spread(self) -> float:
        """The geometric mean of the diagonal: the unit of a step that is the same for all columns."""
        return float(self.diagonal_n.log().mean().exp())


def feedback_of(moment_nn: Tensor, damping: float = DAMPING) -> Feedback:
    """Factor the second moment of a layer's inputs.

    Raises:
        NumericsError: KD703 if it has no Cholesky factor.
    """
    order_n = moment_nn.diagonal().argsort(descending=True, stable=True)
    ordered_nn = moment_nn[order_n[:, None], order_n].double()
    mean = float(ordered_nn.diagonal().mean())
    ordered_nn.diagonal().add_(damping * mean if mean > 0 else 1.0)
    upper_nn = inverse_factor(ordered_nn)
    diagonal_n = upper_nn.diagonal().clone()
    return Feedback(order_n, upper_nn.div_(diagonal_n[:, None]), diagonal_n)


def round_with_feedback(weight_on: Tensor, number: int, columns: Feedback, rows: Feedback | None = None) -> Tensor:
    """Round a weight to multiples of a step so that its error costs little.

    Args:
        weight_on: The weight (out, in).
        number: The number of the step.
        columns: Feedback between columns, from the inputs.
        rows: Feedback between rows, from the gradients at the outputs.

    Returns:
        The integers (out, in), float64.
    """
    order_o = torch.arange(len(weight_on)) if rows is None else rows.order_n
    scaled_on = weight_on.double()[order_o][:, columns.order_n] / step_of(number)
    rounded_on, feedback_on = torch.empty_like(scaled_on), torch.zeros_like(scaled_on)
    count = scaled_on.shape[1]
    for begin in range(0, count, _BLOCK):
        part = slice(begin, min(begin + _BLOCK, count))
        upper_bb = columns.upper_nn[part, part]
        if rows is None:
            integers_ob, error_ob = _down_columns(scaled_on[:, part] + feedback_on[:, part], upper_bb)
        else:
            integers_ob, error_ob = _across(scaled_on[:, part], feedback_on[:, part], upper_bb, rows.upper_nn)
        rounded_on[:, part] = integers_ob
        feedback_on[:, part.stop :] -= error_ob @ columns.upper_nn[part, part.stop :]
    return rounded_on[order_o.argsort()][:, columns.order_n.argsort()]


def _down_columns(target_ob: Tensor, upper_bb: Tensor) -> tuple[Tensor, Tensor]:
    """A block's integers, all rows of a column at once, and their errors. `target_ob` is changed in place."""
    integers_ob, error_ob = torch.empty_like(target_ob), torch.empty_like(target_ob)
    for i in range(target_ob.shape[1]):
        integers_ob[:, i] = target_ob[:, i].round()
        error_ob[:, i] = target_ob[:, i] - integers_ob[:, i]
        target_ob[:, i + 1 :].addr_(error_ob[:, i], upper_bb[i, i + 1 :], alpha=-1)
    return integers_ob, error_ob


def _across(scaled_ob: Tensor, feedback_ob: Tensor, upper_bb: Tensor, upper_oo: Tensor) -> tuple[Tensor, Tensor]:
    """A block's integers and their errors with feedback between rows too.

    A number needs those above it and those left of it, so all numbers of an antidiagonal are rounded at once. With the
    columns reversed it is a diagonal, which is a view.
    """
    outs, block = scaled_ob.shape
    scaled_or, feedback_or = scaled_ob.flip(1), feedback_ob.flip(1)
    before_rr = upper_bb.triu(1).T.flip(0, 1).contiguous()  # row: a column; its entries: feedback of earlier columns
    above_oo = upper_oo.triu(1).T.contiguous()
    integers_or, error_or = torch.empty_like(scaled_or), torch.zeros_like(scaled_or)
    missed_ro = scaled_or.new_zeros(block, outs)  # transposed: the error before the feedback of columns
    for shift in range(block - 1, -outs, -1):
        first = max(0, -shift)
        rows = slice(first, min(outs, block - shift))
        reverse = slice(rows.start + shift, rows.stop + shift)
        target = scaled_or.diagonal(shift) - (missed_ro[reverse] * above_oo[rows]).sum(1)
        corrected = target + feedback_or.diagonal(shift) - (error_or[rows] * before_rr[reverse]).sum(1)
        integers = corrected.round()
        integers_or.diagonal(shift).copy_(integers)
        error_or.diagonal(shift).copy_(corrected - integers)
        missed_ro.T.diagonal(shift).copy_(target - integers)
    return integers_or.flip(1), error_or.flip(1)
