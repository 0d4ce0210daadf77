"""Variable projection: the analytic gradients of the joint searches equal autograd's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.targets import aims, draw
from torch import Tensor

from kdna_convert.core import linalg
from kdna_convert.core.linalg import Kronecker, Single, dense, kronecker, plain_target, single, times
from kdna_convert.core.specs import Shape, product
from kdna_convert.schemes import cp
from kdna_convert.schemes.projection import explain


@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_a_searchs_slope_is_that_of_the_energy_its_rows_explain(form: Callable[[Any], Any]) -> None:
    (target,) = aims([(6, 4, 3, 3)])
    moment = form(target.moment)
    target = replace(target, moment=moment, cross_on=times(target.kernel_on, moment))
    rows = draw(1, 3, 36).requires_grad_()
    cross_or = target.cross_on @ rows.T
    value = (torch.linalg.solve(rows @ dense(moment) @ rows.T, cross_or.T).T * cross_or).sum()
    (slope,) = torch.autograd.grad(value, rows)
    energy, found_slope = explain(rows.detach(), target)
    assert energy == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(found_slope, slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "kronecker"])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 1, 1), (4, 2, 2, 3, 2)])
def test_the_gradient_of_cps_variable_projection_is_autograds(
    shape: Shape, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linalg, "JITTER", 0.1)  # large, so that the gradient of the ridge counts
    (target,) = aims([shape])
    moment = kronecker(dense(target.moment), shape[1]) if form == "kronecker" else target.moment
    beyond = draw(3, *target.kernel_on.shape)
    own = Single(target.kernel_on, times(target.kernel_on, moment) + beyond, beyond, moment, 1.0, 1.0)
    bank, spatial = draw(1, 3, shape[1]), draw(2, 3, product(shape[2:]))
    if product(shape[2:]) == 1:
        spatial = torch.ones_like(spatial)

    def error(bank_ri: Tensor, spatial_rs: Tensor) -> Tensor:
        rows_rn = (bank_ri[:, :, None] * spatial_rs[:, None, :]).flatten(1)
        normal_rr = rows_rn @ dense(own.moment) @ rows_rn.T
        ridge = 0.1 * normal_rr.diagonal().mean()
        mixing_or = torch.linalg.solve(normal_rr + ridge * torch.eye(3), (own.cross_on @ rows_rn.T).T).T
        error = own.kernel_on.flatten() @ own.cross_on.flatten()  # the energy, less what is explained
        explained = 2 * (mixing_or * (own.cross_on @ rows_rn.T)).sum() - (mixing_or @ normal_rr * mixing_or).sum()
        return error - explained + ridge * mixing_or.square().sum()

    leaves = [bank.clone().requires_grad_(), spatial.clone().requires_grad_()]
    value = error(*leaves)
    value.backward()  # type: ignore[no-untyped-call]
    found, by_bank, by_spatial = cp._error(bank, spatial, own)
    assert found == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(by_bank, leaves[0].grad, rtol=1e-5, atol=1e-5)
    if product(shape[2:]) > 1:
        torch.testing.assert_close(by_spatial, leaves[1].grad, rtol=1e-5, atol=1e-5)
    else:
        assert not by_spatial.any(), "a single tap has no kernel of its own to move"


def test_both_metric_forms_of_cp_agree_where_the_moment_is_a_kronecker_product() -> None:
    (target,) = aims([(6, 4, 3, 3)])
    kept = kronecker(dense(target.moment), 4)
    bank, spatial, nothing = draw(1, 3, 4), draw(2, 3, 9), torch.zeros_like(target.kernel_on)
    cross = times(target.kernel_on, kept)
    two = [
        cp._error(bank, spatial, Single(target.kernel_on, cross, nothing, moment, 1.0, 1.0))
        for moment in (kept, dense(kept))
    ]
    assert isinstance(kept, Kronecker)
    assert two[0][0] == pytest.approx(two[1][0])
    for left, right in zip(two[0][1:], two[1][1:], strict=True):
        torch.testing.assert_close(left, right)


def test_a_search_in_float32_takes_one_evaluation_per_step_also_where_the_error_is_small() -> None:
    """The error and its gradient are those of one function, to the last digits."""
    directions, _ = torch.linalg.qr(draw(5, 144, 144))
    moment = (directions * torch.logspace(0, -1, 144, dtype=torch.float64)) @ directions.T
    target = plain_target(draw(1, 24, 16, 3, 3), moment, 1.0)
    values = []

    def error(point: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        value, slopes = cp.search_error(point, [single(target)], 1 / target.energy)
        values.append(value)
        return value, slopes

    linalg.minimize(error, cp._start([target], 100, 0), 150, gain=0)
    assert values[-1] < 1e-5
    assert len(values) < 170
