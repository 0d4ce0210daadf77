"""Fits whose best answer is known: kernels that a scheme represents exactly, and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.targets import CUT, KERNELS, aims, draw, error_of, shared_by
from torch import Tensor

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.linalg import dense, fit_error, kronecker, plain_target, times, times_inverse
from kdna_convert.core.specs import Shape, product
from kdna_convert.schemes import make


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["cp", "basis", "lowrank"]),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(1, 12),
    st.sampled_from([(), (1, 1), (3,), (3, 3)]),
)
def test_the_limit_is_never_above_what_the_kernels_can_carry(
    name: str, outs: list[int], channels: int, taps: Shape
) -> None:
    shapes = [(out, channels, *taps) for out in outs]
    limit = make(name, {}).limit(shapes)
    patch = channels * product(taps)
    carried = {"cp": patch, "basis": min(sum(outs), patch), "lowrank": min(*outs, patch)}
    assert 1 <= limit <= carried[name]


@pytest.mark.parametrize(("name", "rank"), [("basis", 9), ("basis", 13), ("lowrank", 7)])
def test_a_rank_above_what_the_kernels_carry_is_refused_not_cut_short(name: str, rank: int) -> None:
    with pytest.raises(RecipeError, match="KD207"):
        make(name, {"rank": rank}).share(aims([(6, 8), (6, 8)]), seed=0, sweeps=2)


@pytest.mark.parametrize("name", ["cp", "basis"])
def test_a_family_of_equal_kernels_costs_one_of_them_no_error(name: str) -> None:
    kernel = draw(0, 6, 4, 1, 1)
    targets = aims([(6, 4, 1, 1)] * 3, 0, [kernel] * 3)
    assert error_of(make(name, {"rank": 4}), targets, 60) < 1e-8


def test_one_layer_alone_by_lowrank_is_the_best_of_its_rank() -> None:
    """Eckart and Young, in the metric of the outputs."""
    (target,) = aims([(6, 4, 3, 3)])
    values, vectors = torch.linalg.eigh(dense(target.moment))
    half = vectors * values.sqrt()
    singular = torch.linalg.svdvals(target.kernel_on @ half)
    for rank in (1, 3, 5):
        best = float(singular[rank:].square().sum() / singular.square().sum())
        assert error_of(make("lowrank", {"rank": rank}), [target]) == pytest.approx(best, rel=1e-5)


def test_one_layer_alone_by_output_is_the_best_of_its_rank_as_well() -> None:
    targets = aims([(6, 4, 3, 3)])
    for rank in (1, 3, 5):
        both = [error_of(make(name, {"rank": rank}), targets) for name in ("output", "lowrank")]
        assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_no_other_output_directions_leave_less_than_those_of_the_closed_form() -> None:
    scheme, targets = make("output", {"rank": 3}), aims([(6, 4, 3, 3), (6, 5, 1, 1), (6, 2, 3, 3)])

    def left(outputs_oq: Tensor) -> float:
        filters = [scheme.fit({"U": outputs_oq}, {}, t)["V"] for t in targets]
        return sum(t.weight * fit_error(outputs_oq @ v, t) for t, v in zip(targets, filters, strict=True))

    best = shared_by(scheme, targets)[0]["U"]
    assert all(left(best) <= left(best + size * draw(seed, 6, 3)) for seed in range(4) for size in (1e-3, 1e-2, 0.3))


def test_a_target_of_another_kernel_is_what_output_fits() -> None:
    """A refit's target: its cross moment is not the kernel's own."""
    (target,), (other,) = aims([(6, 4, 3, 3)]), aims([(6, 4, 3, 3)], seed=5)
    replaced = replace(target, cross_on=times(other.kernel_on, target.moment))
    mixing = make("output", {"rank": 6}).fit({"U": torch.eye(6).double()}, {}, replaced)["V"]
    torch.testing.assert_close(mixing, other.kernel_on, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 1, 1)])
def test_undoing_a_moment_is_the_inverse_of_applying_it(shape: Shape) -> None:
    (target,) = aims([shape])
    for moment in (target.moment, kronecker(dense(target.moment), shape[1])):
        there_and_back = times_inverse(times(target.kernel_on, moment), moment)
        torch.testing.assert_close(there_and_back, target.kernel_on, rtol=1e-6, atol=1e-6)


def test_kernels_of_the_same_coefficients_cost_atoms_no_error() -> None:
    mixing = draw(0, 6, 4, 3)
    kernels = [
        (mixing @ draw(seed, 3, taps)).view(6, 4, *side) for seed, taps, side in ((1, 9, (3, 3)), (2, 1, (1, 1)))
    ]
    targets = aims([(6, 4, 3, 3), (6, 4, 1, 1)], 0, kernels)
    assert error_of(make("atoms", {"rank": 3}), targets, sweeps=1) < 1e-9


@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_atoms_descend_where_the_start_is_not_the_best(form: Callable[[Any], Any]) -> None:
    targets = [replace(t, moment=form(t.moment), cross_on=times(t.kernel_on, form(t.moment))) for t in aims(KERNELS)]
    few, many = (error_of(make("atoms", {"rank": 6}), targets, sweeps=sweeps) for sweeps in (1, 60))
    assert many < few


def test_a_warehouse_of_whole_filters_is_the_shared_basis() -> None:
    targets = aims(KERNELS)
    both = [
        error_of(make(*scheme), targets, 60)
        for scheme in (("warehouse", {"rank": 5, "cell": 4}), ("basis", {"rank": 5}))
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def test_blocks_cut_from_one_bank_cost_a_warehouse_no_error() -> None:
    bank = draw(0, 3, 2 * 9)
    kernels = [(draw(seed, 6, shape[1] // 2, 3) @ bank).view(shape) for seed, shape in enumerate(CUT)]
    assert error_of(make("warehouse", {"rank": 3, "cell": 2}), aims(CUT, 0, kernels)) < 1e-9


def test_tucker_of_full_rank_is_exact() -> None:
    assert error_of(make("tucker", {"rank": 6}), aims(KERNELS), sweeps=1) < 1e-9


def test_kernels_that_read_few_channels_and_write_few_cost_tucker_no_error() -> None:
    bank = draw(0, 2, 4)
    kernels = [torch.einsum("op,pqs,qi->ois", draw(s, 6, 2), draw(s + 9, 2, 2, 9), bank) for s in range(3)]
    targets = aims(KERNELS, 0, [kernel.view(6, 4, 3, 3) for kernel in kernels])
    assert error_of(make("tucker", {"rank": 2}), targets, sweeps=30) < 1e-6


@pytest.mark.parametrize("name", ["cp", "basis"])
@pytest.mark.parametrize("weights", [(1.0, 1e-6), (1e-6, 1.0)])
def test_the_layer_that_the_loss_feels_is_fitted_better(name: str, weights: tuple[float, float]) -> None:
    shapes: list[Shape] = [(8, 4, 3, 3)] * 2
    targets = [plain_target(draw(i, *s), torch.eye(36).double(), weights[i]) for i, s in enumerate(shapes)]
    scheme = make(name, {"rank": 6})
    shared, adapters = shared_by(scheme, targets)
    errors = [
        fit_error(scheme.expand(shared, a, t.shape).flatten(1), t) for a, t in zip(adapters, targets, strict=True)
    ]
    assert (errors[0] < errors[1]) == (weights[0] > weights[1])
