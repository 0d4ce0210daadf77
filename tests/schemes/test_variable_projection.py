"""Variable projection: the analytic gradients of the joint searches equal autograd's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.targets import aims, draw
from torch import Tensor

from kdna_convert.core.linalg import Kronecker, Target, dense, kronecker, times
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
def test_the_gradient_of_cps_variable_projection_is_autograds(shape: Shape, form: str) -> None:
    (target,) = aims([shape])
    if form == "kronecker":
        moment = kronecker(dense(target.moment), shape[1])
        target = Target(shape, target.kernel_on, times(target.kernel_on, moment), moment, 1.0)
    bank, spatial = draw(1, 3, shape[1]), draw(2, 3, product(shape[2:]))
    if product(shape[2:]) == 1:
        spatial = torch.ones_like(spatial)

    def explained(bank_ri: Tensor, spatial_rs: Tensor) -> Tensor:
        rows_rn = (bank_ri[:, :, None] * spatial_rs[:, None, :]).flatten(1)
        cross_or = target.cross_on @ rows_rn.T
        return (torch.linalg.solve(rows_rn @ dense(target.moment) @ rows_rn.T, cross_or.T).T * cross_or).sum()

    leaves = [bank.clone().requires_grad_(), spatial.clone().requires_grad_()]
    value = explained(*leaves)
    value.backward()  # type: ignore[no-untyped-call]
    energy, by_bank, by_spatial = cp._explained(bank, spatial, target)
    assert energy == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(by_bank, leaves[0].grad, rtol=1e-5, atol=1e-5)
    if product(shape[2:]) > 1:
        torch.testing.assert_close(by_spatial, leaves[1].grad, rtol=1e-5, atol=1e-5)
    else:
        assert not by_spatial.any(), "a single tap has no kernel of its own to move"


def test_both_metric_forms_of_cp_agree_where_the_moment_is_a_kronecker_product() -> None:
    (target,) = aims([(6, 4, 3, 3)])
    kept = kronecker(dense(target.moment), 4)
    cross = times(target.kernel_on, kept)
    bank, spatial = draw(1, 3, 4), draw(2, 3, 9)
    two = [
        cp._explained(bank, spatial, Target(target.shape, target.kernel_on, cross, moment, 1.0))
        for moment in (kept, dense(kept))
    ]
    assert isinstance(kept, Kronecker)
    assert two[0][0] == pytest.approx(two[1][0])
    for left, right in zip(two[0][1:], two[1][1:], strict=True):
        torch.testing.assert_close(left, right)
