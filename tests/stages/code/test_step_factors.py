"""Factors of quantization steps lower the cost of rounding at the same bits, and are left out where they do not."""

from __future__ import annotations

import torch
from torch import Tensor

from kdna_convert.codecs.quantization_steps import Grid
from kdna_convert.codecs.scales import Scales
from kdna_convert.stages.code.feedback_rounding import Feedback, feedback_of, round_with_feedback
from kdna_convert.stages.code.step_factors import row_factors, step_factors

ROWS, INPUTS, TAPS = 64, 24, 9
SHAPE = (ROWS, INPUTS, TAPS)


def moment(spread: float) -> Tensor:
    """The second moment of correlated inputs whose channels differ in size by up to 2^spread."""
    generator = torch.Generator().manual_seed(0)
    size = (spread * torch.linspace(-0.5, 0.5, INPUTS, dtype=torch.float64)).exp2().repeat_interleave(TAPS)
    drawn = torch.randn(INPUTS * TAPS, 1000, generator=generator, dtype=torch.float64)
    inputs = size[:, None] * (drawn + drawn.mean(0))
    return inputs @ inputs.T / 1000


def weight() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, INPUTS * TAPS, generator=generator, dtype=torch.float64)


def rounded(grid: Grid, columns: Feedback) -> tuple[float, float]:
    """The cost of rounding on a grid, and the bits by the histogram of the integers of each column."""
    factors = torch.ones(INPUTS * TAPS) if grid.scales is None else grid.scales.column_factors()
    integers = round_with_feedback(weight() / factors, grid.number, columns.scaled(1 / factors))
    error = grid.values(integers.view(SHAPE)).flatten(1).double() - weight()
    counts = [column.unique(return_counts=True)[1] / ROWS for column in integers.T]
    return float((error @ moment(6) * error).sum()), float(sum(-(share * share.log2()).sum() for share in counts))


def test_factors_of_columns_lower_the_cost_at_the_same_bits() -> None:
    columns = feedback_of(moment(6), 1e-3)
    scales = step_factors(SHAPE, torch.ones(ROWS), columns)
    assert scales is not None
    one, several = (rounded(Grid(-64, own), columns) for own in (None, scales))
    assert several[0] < 0.7 * one[0]
    assert several[1] < 1.02 * one[1]


def test_the_feedback_of_scaled_columns_is_that_of_their_moment() -> None:
    factors = torch.linspace(0.5, 3, INPUTS * TAPS, dtype=torch.float64)
    scaled, columns = feedback_of(moment(2), 0.0).scaled(1 / factors), feedback_of(moment(2), 0.0)
    order = columns.order_n
    own = (moment(2) * factors * factors[:, None])[order[:, None], order]
    precision = scaled.upper_nn * scaled.diagonal_n[:, None]
    torch.testing.assert_close(
        precision.T @ precision @ own, torch.eye(len(own), dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_equal_columns_and_rows_have_no_factors() -> None:
    columns = feedback_of(torch.eye(INPUTS * TAPS, dtype=torch.float64))
    assert step_factors(SHAPE, row_factors(torch.full((ROWS,), 3.0), ROWS * INPUTS * TAPS), columns) is None


def test_rows_have_factors_only_where_these_save_more_bits_than_they_take() -> None:
    cost_o = torch.linspace(-4, 4, ROWS, dtype=torch.float64).exp2()
    factors = row_factors(cost_o, 10_000)
    torch.testing.assert_close((cost_o * factors**2).log2(), cost_o.mean().log2().expand(ROWS), atol=0.26, rtol=0)
    assert torch.equal(row_factors(cost_o, 10), torch.ones(ROWS))


def test_a_grid_decodes_the_integers_that_it_gives() -> None:
    scales = Scales(tuple(range(-3, 2)), tuple(range(4)), (0, 5))
    grid, tensor = Grid(-100, scales), torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(2))
    integers = grid.real(tensor).round()
    assert torch.equal(grid.real(grid.values(integers)).round(), integers)
    assert bool(((grid.values(integers) - tensor).abs() <= 0.5001 * grid.steps((5, 4, 2))).all())
    torch.testing.assert_close(scales.factors((5, 4, 2))[1, 3, 1], torch.tensor(2.0 ** ((-2 + 3 + 5) / 4)))
