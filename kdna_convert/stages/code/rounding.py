"""Rounding a matrix to integers, each number's error fed forward into the columns and rows that are still to come.

For y = W u the error that counts is tr(E C E^T), C = E[u u^T]. Once a column is rounded, the best that those after it
can do is to move by the error times a row of the Cholesky factor of C^-1 (Optimal Brain Surgeon, Hassibi and Stork
1993; as GPTQ arranges it, arXiv 2210.17323). With the factor R, C^-1 = R^T R and R upper triangular, what remains of a
column's error is its rounding error over R[i,i]: that is what a step is measured by.

What the loss feels of an error is tr(G E C E^T), G the second moment of its gradient at the outputs: the same holds
from row to row (arXiv 2505.22988, section 4). With both, a number first moves by what is left of the rows before it,
then by what is left of its own row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...codecs.steps import step_of
from ...core.errors import NumericsError

# Of the mean diagonal of a moment: directions that the images never showed must not be trusted to carry errors.
DAMPING = 1e-3
# Columns rounded one by one before their errors are fed forward together, as one matrix product.
_BLOCK = 48


@dataclass(frozen=True)
class Feedback:
    """How the columns of a matrix are rounded, or its rows: `order_n`, largest first, and the factor in that order.

    `upper_nn` has a unit diagonal, `diagonal_n` is the one that it had: a step of `d` in column i leaves an error of
    d^2 / (12 diagonal_i^2) in each output.
    """

    order_n: Tensor
    upper_nn: Tensor
    diagonal_n: Tensor

    @property
    def spread(self) -> float:
        """The geometric mean of the diagonal: what a step is measured by where all columns have the same."""
        return float(self.diagonal_n.log().mean().exp())


def feedback(moment_nn: Tensor, damping: float = DAMPING) -> Feedback:
    """Factor the second moment of a layer's inputs. Raises NumericsError KD703 where it has no factor."""
    moment_nn = moment_nn.double().clone()
    mean = float(moment_nn.diagonal().mean())
    moment_nn.diagonal().add_(damping * mean if mean > 0 else 1.0)
    order_n = moment_nn.diagonal().argsort(descending=True, stable=True)
    lower_nn, failed = torch.linalg.cholesky_ex(moment_nn[order_n][:, order_n])
    if not failed:
        upper_nn, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower_nn), upper=True)
    if failed or not upper_nn.isfinite().all():
        raise NumericsError("KD703", "a layer's second moment has no Cholesky factor; calibrate on more images")
    diagonal_n = upper_nn.diagonal()
    return Feedback(order_n, upper_nn / diagonal_n[:, None], diagonal_n)


def round_fed(weight_on: Tensor, number: int, how: Feedback, rows: Feedback | None = None) -> Tensor:
    """Integers q_on (float64): times the step of that number, near the weight in the metric of the inputs.

    With `rows`, in that of inputs and outputs together.
    """
    order_o = torch.arange(len(weight_on)) if rows is None else rows.order_n
    scaled_on = weight_on.double()[order_o][:, how.order_n] / step_of(number)
    rounded_on, fed_on = torch.empty_like(scaled_on), torch.zeros_like(scaled_on)
    columns = scaled_on.shape[1]
    for begin in range(0, columns, _BLOCK):
        part = slice(begin, min(begin + _BLOCK, columns))
        upper_bb = how.upper_nn[part, part]
        if rows is None:
            found_ob, error_ob = _down_columns(scaled_on[:, part] + fed_on[:, part], upper_bb)
        else:
            found_ob, error_ob = _across(scaled_on[:, part], fed_on[:, part], upper_bb, rows.upper_nn)
        rounded_on[:, part] = found_ob
        fed_on[:, part.stop :] -= error_ob @ how.upper_nn[part, part.stop :]
    return rounded_on[order_o.argsort()][:, how.order_n.argsort()]


def _down_columns(wished_ob: Tensor, upper_bb: Tensor) -> tuple[Tensor, Tensor]:
    """A block's integers, all rows of a column at once, and how far each is from what it would have been."""
    found_ob, error_ob = torch.empty_like(wished_ob), torch.empty_like(wished_ob)
    for i in range(wished_ob.shape[1]):
        found_ob[:, i] = wished_ob[:, i].round()
        error_ob[:, i] = wished_ob[:, i] - found_ob[:, i]
        wished_ob[:, i + 1 :].addr_(error_ob[:, i], upper_bb[i, i + 1 :], alpha=-1)
    return found_ob, error_ob


def _across(scaled_ob: Tensor, fed_ob: Tensor, upper_bb: Tensor, upper_oo: Tensor) -> tuple[Tensor, Tensor]:
    """The same where rows are fed forward too: a number needs those above it and those left of it, so that all of an
    antidiagonal go at once. With the columns reversed that is a diagonal, which is a view.
    """
    outs, block = scaled_ob.shape
    scaled_or, fed_or = scaled_ob.flip(1), fed_ob.flip(1)
    before_rr = upper_bb.triu(1).T.flip(0, 1).contiguous()  # row: a column; in it, what those before it pass on
    above_oo = upper_oo.triu(1).T.contiguous()
    found_or, error_or = torch.empty_like(scaled_or), torch.zeros_like(scaled_or)
    missed_ro = scaled_or.new_zeros(block, outs)  # by rows: what is missing, but for what the columns passed on
    for shift in range(block - 1, -outs, -1):
        first = max(0, -shift)
        rows = slice(first, min(outs, block - shift))
        reverse = slice(rows.start + shift, rows.stop + shift)
        target = scaled_or.diagonal(shift) - (missed_ro[reverse] * above_oo[rows]).sum(1)
        wished = target + fed_or.diagonal(shift) - (error_or[rows] * before_rr[reverse]).sum(1)
        found = wished.round()
        found_or.diagonal(shift).copy_(found)
        error_or.diagonal(shift).copy_(wished - found)
        missed_ro.T.diagonal(shift).copy_(target - found)
    return found_or.flip(1), error_or.flip(1)
