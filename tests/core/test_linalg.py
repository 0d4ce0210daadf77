"""Laws of the tensor functions that all fits use."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdna_convert.core.errors import NumericsError
from kdna_convert.core.linalg import (
    PATIENCE,
    Kronecker,
    Target,
    damp,
    dense,
    fit_error,
    inverse_factor,
    kronecker,
    mean_diagonal,
    minimize,
    mix,
    plain_target,
    search_target,
    times,
    weighted_energy,
)

few = settings(max_examples=25, deadline=None, derandomize=True)
sizes, seeds = st.integers(1, 5), st.integers(0, 10_000)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(seed: int, size: int) -> Tensor:
    """A second moment of full rank."""
    root = draw(seed, size, size + 2)
    return root @ root.T / (size + 2)


def factors(seed: int, channels: int, taps: int) -> Kronecker:
    return Kronecker(moment(seed, channels), moment(seed + 1, taps))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@few
@given(seeds, sizes, sizes, sizes)
def test_times_is_the_product_with_the_dense_moment(seed: int, rows: int, channels: int, taps: int) -> None:
    kept, x_on = factors(seed, channels, taps), draw(seed + 2, rows, channels * taps)
    close(times(x_on, kept), x_on @ dense(kept))
    close(times(x_on, dense(kept)), x_on @ dense(kept))
    assert mean_diagonal(kept) == pytest.approx(mean_diagonal(dense(kept)))


@few
@given(seeds, sizes, sizes)
def test_the_kronecker_form_of_a_kronecker_product_is_that_product(seed: int, channels: int, taps: int) -> None:
    whole = dense(factors(seed, channels, taps))
    close(dense(kronecker(whole, channels)), whole)


@few
@given(seeds, sizes, sizes)
def test_the_kronecker_form_of_any_moment_keeps_its_trace(seed: int, channels: int, taps: int) -> None:
    whole = moment(seed, channels * taps)
    close(dense(kronecker(whole, channels)).trace(), whole.trace())


@few
@given(seeds, st.integers(1, 8), st.integers(1, 6))
def test_a_damped_moment_is_symmetric_and_positive_definite(seed: int, size: int, rank: int) -> None:
    root = draw(seed, size, rank)
    damped = damp((root @ root.T).float(), 1e-4)
    assert isinstance(damped, Tensor)
    assert damped.dtype == torch.float64
    assert torch.equal(damped, damped.T)
    assert torch.linalg.eigvalsh(damped)[0] > 0


@few
@given(seeds, sizes, sizes)
def test_damping_both_factors_keeps_them_symmetric_and_positive_definite(seed: int, channels: int, taps: int) -> None:
    thin = Kronecker(draw(seed, channels, 1) @ draw(seed, channels, 1).T, draw(seed, taps, 1) @ draw(seed, taps, 1).T)
    whole = dense(damp(thin))
    close(whole, whole.T)
    assert torch.linalg.eigvalsh(whole)[0] > 0


def test_the_moment_of_inputs_that_were_all_zero_becomes_the_identity() -> None:
    assert torch.equal(dense(damp(torch.zeros(4, 4))), torch.eye(4, dtype=torch.float64))
    assert torch.equal(dense(damp(Kronecker(torch.zeros(2, 2), torch.zeros(2, 2)))), torch.eye(4, dtype=torch.float64))


@few
@given(seeds, sizes, sizes, sizes)
def test_no_other_mixing_does_better_than_mix(seed: int, out: int, rank: int, extra: int) -> None:
    basis_rn, kernel_on = draw(seed, rank, rank + extra), draw(seed + 1, out, rank + extra)
    target = plain_target(kernel_on, moment(seed + 2, rank + extra), 1.0)
    cross_or = target.cross_on @ basis_rn.T
    mixing_or = mix(times(basis_rn, target.moment) @ basis_rn.T, cross_or).requires_grad_()
    gap_on = target.kernel_on - mixing_or @ basis_rn
    error = (times(gap_on, target.moment) * gap_on).sum()
    error.backward()
    assert mixing_or.grad is not None
    assert float(mixing_or.grad.norm()) <= 1e-6 * float(cross_or.norm())


def test_mixing_rows_that_are_zero_gives_zero_and_not_nan() -> None:
    assert torch.equal(mix(torch.zeros(2, 2).double(), torch.zeros(3, 2).double()), torch.zeros(3, 2).double())


def test_an_indefinite_gram_matrix_is_a_numerics_error() -> None:
    with pytest.raises(NumericsError, match="KD703"):
        mix(torch.diag(torch.tensor([1.0, -1.0]).double()), torch.ones(1, 2).double())


@few
@given(seeds, sizes)
def test_the_inverse_factor_is_upper_triangular_and_its_square_inverts_the_moment(seed: int, size: int) -> None:
    moment_nn = damp(moment(seed, size))
    assert isinstance(moment_nn, Tensor)
    upper_nn = inverse_factor(moment_nn)
    torch.testing.assert_close(upper_nn, upper_nn.triu())
    torch.testing.assert_close(upper_nn.T @ upper_nn @ moment_nn, torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_moment_without_a_factor_is_a_numerics_error(value: float) -> None:
    with pytest.raises(NumericsError, match="KD703"):
        inverse_factor(torch.diag(torch.tensor([1.0, value], dtype=torch.float64)))


@few
@given(seeds, st.integers(1, 6))
def test_minimize_reaches_the_minimum_of_a_quadratic(seed: int, size: int) -> None:
    curve, goals = moment(seed, size) + torch.eye(size).double(), (draw(seed + 1, size), draw(seed + 2, 2, size))

    def quadratic(point: object) -> tuple[float, list[Tensor]]:
        gaps = [x - goal for x, goal in zip(point, goals, strict=True)]  # type: ignore[call-overload]
        return sum(float((gap @ curve * gap).sum()) for gap in gaps) / 2, [gap @ curve for gap in gaps]

    start = [torch.zeros_like(goal) for goal in goals]
    minimum = minimize(quadratic, start, 200)
    for reached, goal in zip(minimum, goals, strict=True):
        torch.testing.assert_close(reached, goal, rtol=1e-3, atol=1e-3)
    assert all(not tensor.any() for tensor in start), "the start is not to be changed"


def test_minimize_takes_no_more_steps_than_it_is_given() -> None:
    def quadratic(point: object) -> tuple[float, list[Tensor]]:
        (x,) = point  # type: ignore[misc]
        slope = torch.arange(1, 31).double() ** 3
        return float((slope * (x - 1) ** 2).sum()), [2 * slope * (x - 1)]

    errors = [quadratic(minimize(quadratic, [torch.zeros(30).double()], steps))[0] for steps in (1, 5, 30)]
    assert errors[0] > errors[1] > errors[2]


def test_minimize_goes_as_far_for_an_error_a_billion_times_smaller() -> None:
    def quadratic(point: object, unit: float) -> tuple[float, list[Tensor]]:
        (x,) = point  # type: ignore[misc]
        slope = unit * torch.arange(1, 31).double() ** 2
        return float((slope * (x - 1) ** 2).sum()), [2 * slope * (x - 1)]

    for unit in (1.0, 1e-9):
        (x,) = minimize(lambda point, unit=unit: quadratic(point, unit), [torch.zeros(30).double()], 150)  # type: ignore[misc]
        assert float((x - 1).abs().max()) < 1e-3


def test_minimize_stops_where_a_few_steps_gain_next_to_nothing() -> None:
    calls = []

    def flat(point: object) -> tuple[float, list[Tensor]]:
        (x,) = point  # type: ignore[misc]
        calls.append(1)
        return 1 + 1e-6 * float((torch.arange(1, 31).double() ** 4 * (x - 1) ** 2).sum()) / 30**4, [
            2e-6 * torch.arange(1, 31).double() ** 4 * (x - 1) / 30**4
        ]

    minimize(flat, [torch.zeros(30).double()], 500)
    assert len(calls) < 2 * PATIENCE


@few
@given(seeds, st.integers(1, 4), st.integers(1, 4))
def test_an_exact_moment_is_only_damped(seed: int, channels: int, taps: int) -> None:
    kernel, second = draw(seed, 3, channels, taps), moment(seed + 1, channels * taps)
    target = plain_target(kernel, second, 2.0)
    assert torch.equal(dense(target.moment), dense(damp(second)))
    close(target.cross_on, kernel.flatten(1) @ dense(damp(second)))
    assert target.energy == pytest.approx(float((target.cross_on * kernel.flatten(1)).sum()))


@few
@given(seeds, st.integers(2, 4), st.integers(2, 4))
def test_the_fewer_the_patches_the_nearer_a_moment_comes_to_its_kronecker_form(
    seed: int, channels: int, taps: int
) -> None:
    kernel, second = draw(seed, 3, channels, taps), moment(seed + 1, channels * taps)
    form = dense(kronecker(dense(damp(second)), channels))
    distance = [
        float((dense(plain_target(kernel, second, 1.0, count).moment) - form).norm()) for count in (1, 10, 10_000)
    ]
    assert distance[0] <= distance[1] <= distance[2]
    assert distance[2] == pytest.approx(float((dense(damp(second)) - form).norm()), rel=0.01)


def test_the_error_of_the_targets_kernel_is_zero_and_of_a_zero_kernel_its_energy() -> None:
    target = plain_target(draw(0, 4, 3, 2), moment(1, 6), 1.0)
    assert fit_error(target.kernel_on, target) == 0
    assert fit_error(torch.zeros_like(target.kernel_on), target) == pytest.approx(target.energy)


def test_only_a_long_patch_is_searched_under_the_kronecker_form(monkeypatch: pytest.MonkeyPatch) -> None:
    target = plain_target(draw(0, 4, 3, 2), damp(factors(1, 3, 2)), 1.0)
    whole = plain_target(draw(0, 4, 3, 2), dense(factors(1, 3, 2)), 1.0)
    assert search_target(whole) is whole
    monkeypatch.setattr("kdna_convert.core.linalg.FULL_METRIC_PATCH", 5)
    assert search_target(target) is target, "it has that form already"
    assert isinstance(search_target(whole).moment, Kronecker)
    assert search_target(whole).energy == pytest.approx(whole.energy, rel=1e-2)


def test_the_energy_of_a_family_of_zero_kernels_can_still_be_divided_by() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    nothing = Target((2, 3), zeros, zeros, torch.eye(3, dtype=torch.float64), 1.0)
    assert weighted_energy([nothing]) > 0


def test_a_gram_matrix_that_float32_made_indefinite_still_has_a_mixing() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -4, 60)
    rows = torch.randn(400, 60, generator=generator) * scale
    gram = rows @ rows.T + 3e-6 * torch.randn(400, 400, generator=generator)
    gram = (gram + gram.T) / 2
    target = torch.randn(8, 60, generator=generator) * scale
    raised = gram + 1e-6 * gram.diagonal().mean() * torch.eye(400)
    assert torch.linalg.cholesky_ex(raised).info > 0
    mixed = mix(gram, target @ rows.T)
    assert (mixed @ rows - target).norm() < 0.02 * target.norm()
