"""The codebook scheme: k-means, error feedback between cells, gains, and sums of codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.targets import CUT, aims, draw, error_of, shared_by

from kdna_convert.core.errors import RecipeError
from kdna_convert.core.linalg import dense, fit_error, kronecker, plain_target, times
from kdna_convert.core.specs import product
from kdna_convert.schemes import make
from kdna_convert.schemes.vector_quantization import (
    choose_codes,
    error_feedback,
    line_bank,
    nearest_sum,
    point_bank,
    stack_feedback,
)


def test_cells_that_are_scaled_copies_of_few_cost_a_codebook_no_error() -> None:
    bank = draw(0, 3, 9)
    which = [(draw(seed, shape[0], shape[1]).abs() * 9).long() % 3 for seed, shape in enumerate(CUT)]
    kernels = [
        (draw(seed + 5, *shape[:2], 1) * bank[code]).view(shape)
        for seed, (shape, code) in enumerate(zip(CUT, which, strict=True))
    ]
    assert min(error_of(make("codebook", {"rank": 3}), aims(CUT, 0, kernels), seed=seed) for seed in range(4)) < 1e-9


def test_filters_made_of_few_cells_cost_a_codebook_with_a_gain_each_no_error() -> None:
    bank = draw(0, 3, 9)
    which = [(draw(seed, shape[0], shape[1]).abs() * 9).long() % 3 for seed, shape in enumerate(CUT)]
    kernels = [
        (draw(seed + 5, shape[0], 1, 1).abs().add(0.1) * bank[code]).view(shape)
        for seed, (shape, code) in enumerate(zip(CUT, which, strict=True))
    ]
    scheme = make("codebook", {"rank": 3, "gain": "filter"})
    assert min(error_of(scheme, aims(CUT, 0, kernels), 40, seed=seed) for seed in range(8)) < 1e-9


def test_two_codes_leave_less_of_kernels_of_noise_than_one_and_a_gain_for_each_cell() -> None:
    targets = aims([(32, 16, 3, 3)] * 3)
    numbers, errors = [], []
    for options in ({"rank": 80}, {"rank": 58, "gain": "filter", "codes": 2}):
        scheme = make("codebook", options)
        layout = scheme.layout([target.shape for target in targets])
        specs = [*layout.shared.values(), *(spec for adapter in layout.adapters for spec in adapter.values())]
        numbers.append(sum(product(tuple(options["rank"] if n == "rank" else n for n in spec)) for spec in specs))
        errors.append(error_of(scheme, targets, 60))
    assert numbers[1] <= numbers[0]
    assert errors[1] < 0.8 * errors[0]


def test_each_code_more_leaves_less_of_a_cell() -> None:
    cells, bank = draw(0, 200, 9), draw(1, 40, 9)
    sizes = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64).expand(200, 3)
    left = [float(nearest_sum(cells, bank, sizes[:, :codes], 0)[1].square().sum()) for codes in (1, 2, 3)]
    assert left[2] < left[1] < left[0]
    codes, rest = nearest_sum(cells, bank, sizes, 2)
    assert float(rest.square().sum()) < left[2]
    assert torch.allclose(rest, cells - (sizes[..., None] * bank[codes]).sum(1))


def test_several_codes_with_a_gain_for_each_cell_are_refused() -> None:
    with pytest.raises(RecipeError, match="codes") as error:
        make("codebook", {"codes": 2})
    assert error.value.code == "KD203"


@pytest.mark.parametrize("gain", ["cell", "filter"])
def test_codes_that_make_up_for_the_errors_before_them_leave_less_than_the_nearest(gain: str) -> None:
    shape, generator = (24, 8, 3, 3), torch.Generator().manual_seed(3)
    inputs = torch.rand(400, 8, generator=generator, dtype=torch.float64)
    channels = inputs.T @ inputs / 400  # as behind a ReLU: of one sign, so they have much to do with each other
    moment = torch.kron(channels, torch.eye(9, dtype=torch.float64))
    target = plain_target(draw(0, *shape), moment, 1.0)
    bank, gains = (
        point_bank([target], [8], 48, 1, 0, 8) if gain == "filter" else (line_bank([target], [8], 48, 0, 8), [None])
    )
    scheme = make("codebook", {"rank": 48, "gain": gain})
    errors = []
    for metric in (target.moment, torch.eye(72, dtype=torch.float64)):
        feedback = error_feedback(plain_target(target.kernel_on.view(shape), metric, 1.0), 8)
        own = None if gains[0] is None else gains[0][None]
        codes = choose_codes(bank, own, target.kernel_on[None], feedback)[0, ..., 0]
        adapter = scheme.fit({"E": bank}, {"K": codes}, target)
        errors.append(fit_error(scheme.expand({"E": bank}, adapter, shape).flatten(1), target))
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 8)])
def test_codes_of_layers_chosen_together_are_those_of_each_cell_after_cell(
    form: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = aims([(5, 8, 3, 3)] * 3)
    targets = [replace(target, moment=form(target.moment)) for target in targets]
    bank, gains = point_bank(targets, [4] * 3, 12, 2, 0, 2)
    monkeypatch.setattr("kdna_convert.schemes.vector_quantization.LAZY", 3)
    feeds = [error_feedback(target, 4) for target in targets]
    kernels = torch.stack([target.kernel_on for target in targets])
    codes = choose_codes(bank, torch.stack(gains), kernels, stack_feedback(feeds), 1)
    for target, gain, feed, found in zip(targets, gains, feeds, codes, strict=True):
        order, rest = feed.order_lb[0], target.kernel_on.view(5, 4, -1)[:, feed.order_lb[0]].clone()
        upper = torch.kron(feed.upper_lii[0], feed.taps_ltt[0]).double().view(4, 18, 4, 18)
        for b in range(4):
            inverse = torch.linalg.inv(upper[b, :, b])
            code, error = nearest_sum(rest[:, b] @ inverse, bank @ inverse, gain, 1)
            rest[:, b + 1 :] -= torch.einsum("oc,cbd->obd", error, upper[b, :, b + 1 :])
            assert torch.equal(found[:, order[b]], code)


@pytest.mark.parametrize(("gain", "codes"), [("cell", 1), ("filter", 1), ("filter", 2)])
def test_codes_chosen_anew_for_another_kernel_leave_less_than_gains_alone(gain: str, codes: int) -> None:
    before, after = aims([(24, 8, 3, 3)] * 2)
    scheme = make("codebook", {"rank": 32, "gain": gain, "codes": codes})
    shared, (adapter,) = shared_by(scheme, [before])
    held, chosen = scheme.fit(shared, adapter, after), scheme.reassign(shared, adapter, after)
    left = [fit_error(scheme.expand(shared, own, after.shape).flatten(1), after) for own in (held, chosen)]
    assert left[1] < 0.7 * left[0]
    assert {key: (own.shape, own.dtype) for key, own in chosen.items()} == {
        key: (own.shape, own.dtype) for key, own in adapter.items()
    }


@pytest.mark.parametrize("gain", ["cell", "filter"])
@pytest.mark.parametrize("form", [dense, lambda moment: kronecker(dense(moment), 4)])
def test_the_gains_of_a_codebook_leave_its_error_no_slope(form: Callable[[Any], Any], gain: str) -> None:
    (target,) = aims([(6, 4, 3, 3)])
    target = replace(target, moment=form(target.moment), cross_on=times(target.kernel_on, form(target.moment)))
    for cell in (1, 2, 4):
        scheme = make("codebook", {"rank": 5, "cell": cell, "gain": gain})
        shared, (adapter,) = shared_by(scheme, [target])
        gains = adapter["U"].clone().requires_grad_()
        gap_on = target.kernel_on - scheme.expand(shared, {**adapter, "U": gains}, target.shape).flatten(1)
        (slope,) = torch.autograd.grad((times(gap_on, target.moment) * gap_on).sum(), gains)
        assert float(slope.abs().max()) < 1e-6 * target.energy
