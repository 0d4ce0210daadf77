"""Factors of a tensor's quantization step by row, column and tap, so that every integer costs the loss the same.

At a step d, a number in row o and column k costs d^2 / 12 times the row's cost times 1 / diagonal_k^2, the parts that
later rows and columns cannot compensate (row_costs.py, feedback_rounding.py). The bits depend on the product of the
steps only. So by the inequality of means the cost is lowest where all numbers cost the same, and the bits per number
that this saves are half the logarithm of the arithmetic over the geometric mean of the costs
(docs/decisions/0031-factors-of-steps.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...codecs.scales import Scales, lengths, nearest_exponents, power
from ...core.specs import Shape
from .feedback_rounding import Feedback

# The bits that a stored factor takes.
_BITS = 3.0


def row_factors(cost_o: Tensor, numbers: int) -> Tensor:
    """The factors (rows,) of the steps of rows with these costs; ones where they save fewer bits than they take."""
    return power(torch.tensor(nearest_exponents(_factors((cost_o.mean() / cost_o).sqrt(), cost_o, numbers))))


def step_factors(shape: Shape, rows_o: Tensor, columns: Feedback) -> Scales | None:
    """The factors of a tensor's steps; None if all are one.

    Args:
        shape: The tensor's shape.
        rows_o: The factors of its rows.
        columns: The feedback between its columns.
    """
    size, (_, inputs, taps) = math.prod(shape), lengths(shape)
    logs_it = columns.diagonal_n[columns.order_n.argsort()].log2().view(inputs, taps)
    logs_it = logs_it - logs_it.mean()
    columns_i, taps_t = (
        nearest_exponents(_factors(own.exp2(), (-2 * own).exp2(), size)) for own in (logs_it.mean(1), logs_it.mean(0))
    )
    scales = Scales(nearest_exponents(rows_o), columns_i, taps_t)
    return scales if any((*scales.rows, *scales.columns, *scales.taps)) else None


def _factors(wanted: Tensor, cost: Tensor, numbers: int) -> Tensor:
    saved = 0.5 * numbers * float(cost.mean().log2() - cost.log2().mean())
    return wanted if saved > _BITS * len(cost) else torch.ones_like(wanted)
