"""Rounding a matrix to integers, each column's error fed forward into the columns that are still to come.

For y = W u the error that counts is tr(E C E^T), C = E[u u^T]. Once a column is rounded, the best that those after it
can do is to move by the error times a row of the Cholesky factor of C^-1 (Optimal Brain Surgeon, Hassibi and Stork
1993; as GPTQ arranges it, arXiv 2210.17323). With the factor R, C^-1 = R^T R and R upper triangular, what remains of a
column's error is its rounding error over R[i,i]: that is what a step is measured by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..codecs.steps import step_of
from ..errors import NumericsError

# Of the mean diagonal of a moment: directions that the images never showed must not be trusted to carry errors.
DAMPING = 1e-3
# Columns rounded one by one before their errors are fed forward together, as one matrix product.
_BLOCK = 48


@dataclass(frozen=True)
class Feedback:
    """How the columns of a matrix are rounded: `order_n`, largest input first, and the factor in that order.

    `upper_nn` has a unit diagonal; `spread` is the geometric mean of the diagonal that it had: a step of `d` leaves an
    output error of about d^2 / (12 spread^2) for each entry of a row.
    """

    order_n: Tensor
    upper_nn: Tensor
    spread: float


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
    return Feedback(order_n, upper_nn / diagonal_n[:, None], float(diagonal_n.log().mean().exp()))


def round_fed(weight_on: Tensor, number: int, how: Feedback) -> Tensor:
    """Integers q_on (float64): times the step of that number, near the weight in the metric of the inputs."""
    scaled_on = weight_on.double()[:, how.order_n] / step_of(number)
    rounded_on = torch.empty_like(scaled_on)
    columns = scaled_on.shape[1]
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        block_ob, upper_bb = scaled_on[:, begin:end].clone(), how.upper_nn[begin:end, begin:end]
        error_ob = torch.empty_like(block_ob)
        for i in range(end - begin):
            rounded_on[:, begin + i] = block_ob[:, i].round()
            error_ob[:, i] = block_ob[:, i] - rounded_on[:, begin + i]
            block_ob[:, i + 1 :].addr_(error_ob[:, i], upper_bb[i, i + 1 :], alpha=-1)
        scaled_on[:, end:] -= error_ob @ how.upper_nn[begin:end, end:]
    inverse_n = how.order_n.argsort()
    return rounded_on[:, inverse_n]
