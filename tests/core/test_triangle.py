"""Laws of triangles: they hold a symmetric matrix whole, and a sum in strips is the sum of all rows."""

import pytest
import torch

from kdna_convert.core.specs import Layer
from kdna_convert.core.triangle import SquareSum, Triangle
from kdna_convert.stages.analyze.moments import needed, sum_bytes

SIZES = [1, 2, 95, 96, 97, 300, 1000]
CPU = torch.device("cpu")


@pytest.mark.parametrize("size", SIZES)
def test_a_triangle_holds_a_symmetric_matrix_whole(size: int) -> None:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    matrix = matrix + matrix.T
    triangle = Triangle.of(matrix)
    assert len(triangle.values) == size * (size + 1) // 2
    assert torch.equal(triangle.whole(), matrix)


def test_a_triangle_takes_its_rows_and_columns_in_another_order() -> None:
    order = torch.tensor([2, 0, 1])
    matrix = torch.tensor([[1.0, 4, 5], [4, 2, 6], [5, 6, 3]])
    assert torch.equal(Triangle.of(matrix, order).whole(), matrix[order][:, order])


@pytest.mark.parametrize("size", SIZES)
def test_a_sum_in_strips_is_the_sum_of_all_rows(size: int) -> None:
    rows = torch.randn(40, size, generator=torch.Generator().manual_seed(0))
    square = SquareSum(size, CPU)
    for part in rows.split(17):
        square.add(part)
    whole = square.whole()
    torch.testing.assert_close(whole, rows.T @ rows, rtol=1e-5, atol=1e-4)
    assert torch.equal(whole, whole.T)


@pytest.mark.parametrize("place", [0, 100, 299])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_one_number_that_is_not_finite_or_has_no_finite_square_is_seen(place: int, value: float) -> None:
    square = SquareSum(300, CPU)
    square.add(torch.ones(5, 300))
    assert square.is_finite
    rows = torch.ones(5, 300)
    rows[3, place] = value
    square.add(rows)
    assert not square.is_finite


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
def test_a_sum_takes_no_more_bytes_than_planned(channels: int) -> None:
    own = Layer("wide", "Conv2d", (8, channels, 9))
    assert 4 * SquareSum(own.patch, torch.device("meta")).values.numel() <= sum_bytes(own, "full")
    assert needed([own], {"wide": "full"}) >= sum_bytes(own, "full") + 4 * own.patch**2
