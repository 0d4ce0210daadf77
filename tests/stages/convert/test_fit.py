"""Laws of a conversion: what is fitted, what stays unchanged, and how a start is chosen."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.plans import family, moments_of, plan_for, square_conv
from support.small_nets import MEMBERS, images, small
from torch import nn

from kdna_convert.core.errors import NumericsError
from kdna_convert.core.linalg import Kronecker
from kdna_convert.core.measurements import Divergence
from kdna_convert.core.specs import Family
from kdna_convert.inputs.models import state_digest
from kdna_convert.network.derive import fold
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.analyze.moments import LayerMoments, Moments, packed
from kdna_convert.stages.analyze.targets import LEAST_WEIGHT, targets
from kdna_convert.stages.convert.fit import FEWEST, SWEEPS, convert, sweeps_of
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of


@pytest.mark.parametrize("scheme", SCHEMES)
def test_conversion_changes_only_the_members_and_not_the_original(scheme: str) -> None:
    net = small().train()
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    converted, _ = convert(net, plan_for(net, family(scheme)), moments_of(net))
    assert all(torch.equal(net.state_dict()[key], tensor) for key, tensor in before.items())
    assert modes == [module.training for module in net.modules()]
    left = {key for key in before if not key.startswith(tuple(f"{name}.weight" for name in MEMBERS))}
    after = converted.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in left)
    assert not any(f"{name}.weight" in after for name in MEMBERS)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_folded_net_equals_the_derived_one(scheme: str) -> None:
    net = small()
    converted, _ = convert(net, plan_for(net, family(scheme)), moments_of(net))
    folded = fold(copy.deepcopy(converted))
    assert folded.state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(folded(images()), converted(images()), rtol=0, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_plan_gives_the_same_bits(scheme: str) -> None:
    net = small()
    digests = set()
    for noise in range(2):
        torch.manual_seed(noise)  # the global random state must not matter, nor be changed
        state = torch.get_rng_state()
        digests.add(state_digest(convert(net, plan_for(net, family(scheme)), moments_of(net))[0]))
        assert torch.equal(torch.get_rng_state(), state)
    assert len(digests) == 1


def test_another_seed_gives_another_cp() -> None:
    net = small()
    plan = plan_for(net, family("cp", rank=3))
    digests = {state_digest(convert(net, replace(plan, seed=seed), moments_of(net), sweeps=2)[0]) for seed in (0, 1)}
    assert len(digests) == 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_errors_reported_are_those_of_the_outputs(scheme: str) -> None:
    """Relative output error of a layer on the very patches of its moment, damping aside."""
    net = small()
    converted, (fit,) = convert(net, plan_for(net, family(scheme)), moments_of(net))
    assert fit.owner == MEMBERS[0]
    assert set(fit.errors) == set(MEMBERS)
    for name, target in zip(MEMBERS, targets(net, family(scheme), moments_of(net)), strict=True):
        gap = converted.get_submodule(name).weight.detach().double().flatten(1) - target.kernel_on
        error = float((gap @ dense_of(target.moment) * gap).sum()) / target.energy
        assert fit.errors[name] == pytest.approx(error, rel=1e-3, abs=1e-9)


def dense_of(moment: Any) -> torch.Tensor:
    return torch.kron(*moment) if isinstance(moment, Kronecker) else moment


@pytest.mark.parametrize("scheme", ["cp", "basis", "lowrank"])
def test_a_higher_rank_gives_a_smaller_error(scheme: str) -> None:
    net = small()
    z0 = outputs_of(net, [images(16)])
    errors = []
    for rank in (1, 3, 5):
        converted, _ = convert(
            net, plan_for(net, family(scheme, rank=rank * (1 if scheme == "lowrank" else 3))), moments_of(net)
        )
        errors.append(divergence(outputs_of(converted, [images(16)]), z0).logit_error)
    assert errors[0] > errors[1] > errors[2]


def test_several_families_are_fitted_each_by_itself() -> None:
    net = small()
    plan = plan_for(net, family("lowrank", MEMBERS[:1]), family("basis", MEMBERS[1:]))
    steps: list[tuple[str, int, int]] = []
    converted, fits = convert(net, plan, moments_of(net), progress=lambda *step: steps.append(step))
    assert [fit.owner for fit in fits] == [MEMBERS[0], MEMBERS[1]]
    assert steps == [("fit: body.0 (1 layers)", 0, 2), ("fit: body.2 (2 layers)", 1, 2), ("fit", 2, 2)]
    assert converted(images()).isfinite().all()


def test_kerneldnas_best_start_is_the_one_that_moves_the_net_least() -> None:
    net = small()
    z0 = outputs_of(net, [images(16)])

    def measure(model: nn.Module) -> Divergence:
        return divergence(outputs_of(model, [images(16)]), z0)

    moments = moments_of(net)
    by_start = {}
    for start in ("tie", "lstsq", "norm"):
        plan = plan_for(net, family("kerneldna", start=start, residual_rank=0))
        by_start[start] = measure(convert(net, plan, moments)[0]).kl
    best = min(by_start, key=lambda start: by_start[start])
    plan = plan_for(net, family("kerneldna", residual_rank=0))
    converted, (fit,) = convert(net, plan, moments, measure=measure)
    assert fit.start == best
    assert measure(converted).kl == by_start[best]
    _, (blind,) = convert(net, plan, moments)
    assert blind.start == "lstsq", "without images, the start of least error"


def test_a_start_with_outputs_that_are_not_finite_is_not_chosen() -> None:
    net, measured = small(), []

    def measure(model: nn.Module) -> Divergence:
        measured.append(model)
        if len(measured) == 1:
            raise NumericsError("KD702", "the net's logits are not finite")
        return Divergence(1.0, float(len(measured)), 0.0, 1)

    _, (fit,) = convert(net, plan_for(net, family("kerneldna")), moments_of(net), measure=measure)
    assert (len(measured), fit.start) == (3, "lstsq")


def test_a_sick_weight_is_named() -> None:
    net = small()
    moments = moments_of(net)
    with torch.no_grad():
        net.body[2].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"KD701: body\.2: "):
        convert(net, plan_for(small(), family("cp")), moments)


def test_a_fit_that_is_not_finite_names_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(self: object, aims: Any, *, seed: int, sweeps: int) -> Any:
        shared, adapters = honest(self, aims, seed=seed, sweeps=sweeps)
        return shared, [*adapters[:-1], {**adapters[-1], "U": adapters[-1]["U"] / 0}]

    honest = SCHEMES["basis"].share
    monkeypatch.setattr(SCHEMES["basis"], "share", share)
    net = small()
    with pytest.raises(NumericsError, match=r"KD703: family of body\.0 and 2 more: the fit of last is not finite"):
        convert(net, plan_for(net, family("basis")), moments_of(net))


def test_more_sweeps_fit_cp_better() -> None:
    net = small()
    plan, moments = plan_for(net, family("cp", rank=4)), moments_of(net)
    errors = [sum(convert(net, plan, moments, sweeps=sweeps)[1][0].errors.values()) for sweeps in (1, 10, 80)]
    assert errors[0] > errors[1] > errors[2]


def weighed(sensitivities: Sequence[float]) -> list[float]:
    net = small()
    moments = {
        name: replace(moment, gradient=size * torch.eye(len(moment.gradient)))
        for (name, moment), size in zip(((n, moments_of(net)[n]) for n in MEMBERS), sensitivities, strict=True)
    }
    return [target.weight for target in targets(net, family("cp"), moments)]


def test_the_weight_of_a_target_is_the_sensitivity_of_its_layer() -> None:
    assert weighed([0.5, 2.0, 1.0]) == [0.5, 2.0, 1.0]


def test_a_layer_without_sensitivity_has_the_least_weight() -> None:
    assert weighed([0.5, 0.0, 1.5]) == pytest.approx([0.5, LEAST_WEIGHT, 1.5])


def test_without_sensitivities_targets_are_weighted_by_energy() -> None:
    net = small()
    moments: Moments = {name: replace(moment, gradient=0 * moment.gradient) for name, moment in moments_of(net).items()}
    assert [t.weight * t.energy for t in targets(net, family("cp"), moments)] == pytest.approx([1, 1, 1])


def test_a_layer_whose_inputs_were_all_zero_is_still_fitted() -> None:
    net = small()
    moments = {
        name: LayerMoments(packed(0 * m.second), 0 * m.mean, m.count, 0 * m.gradient)  # type: ignore[operator]
        for name, m in moments_of(net).items()
    }
    for scheme in SCHEMES:
        converted, _ = convert(net, plan_for(net, family(scheme)), moments)
        assert converted(images()).isfinite().all()


def test_members_are_found_by_name_and_not_by_order() -> None:
    net = small()
    turned = family("basis", tuple(reversed(MEMBERS)))
    converted, (fit,) = convert(net, plan_for(net, turned), moments_of(net))
    assert fit.owner == "last"
    assert converted.last.parametrizations.weight[0].is_owner  # type: ignore[union-attr]


def test_a_wide_family_takes_fewer_iterations() -> None:
    def sweeps(channels: int) -> int:
        layers = [square_conv(name, channels) for name in "ab"]
        return sweeps_of(Family("cp", ("a", "b"), {"rank": 2 * channels}), layers)

    assert (sweeps(16), sweeps(1024)) == (SWEEPS, FEWEST)
    assert SWEEPS > sweeps(500) > sweeps(600) > FEWEST
