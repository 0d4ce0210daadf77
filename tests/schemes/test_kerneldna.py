"""KernelDNA's scheme: its starts, its parent and its residual."""

from __future__ import annotations

import pytest
import torch
from support.targets import KERNELS, aims, error_of, shared_by

from kdna_convert.core.linalg import times
from kdna_convert.schemes import make


@pytest.mark.parametrize("channel", [False, True])
def test_kerneldnas_tie_is_the_parent_itself(channel: bool) -> None:
    scheme = make("kerneldna", {"start": "tie", "channel": channel})
    shared, adapters = shared_by(scheme, aims(KERNELS))
    for adapter in adapters:
        assert not any(tensor.any() for tensor in adapter.values())
        assert torch.equal(scheme.expand(shared, adapter, KERNELS[0]), shared["P"])


@pytest.mark.parametrize("channel", [False, True])
def test_kerneldnas_norm_start_gives_each_filter_its_output_energy(channel: bool) -> None:
    scheme, targets = make("kerneldna", {"start": "norm", "channel": channel}), aims(KERNELS)
    shared, adapters = shared_by(scheme, targets)
    for target, adapter in zip(targets, adapters, strict=True):
        child_on = scheme.expand(shared, adapter, target.shape).flatten(1)
        energy = (times(child_on, target.moment) * child_on).sum(1)
        expected = (target.cross_on * target.kernel_on).sum(1)
        torch.testing.assert_close(energy, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("start", ["best", "tie", "lstsq", "norm"])
@pytest.mark.parametrize("residual_rank", [0, 2])
def test_kerneldnas_medoid_is_one_of_the_kernels_and_its_own_fit_exact(start: str, residual_rank: int) -> None:
    scheme, targets = make("kerneldna", {"start": start, "residual_rank": residual_rank}), aims(KERNELS)
    shared, adapters = shared_by(scheme, targets)
    gaps = [
        float((scheme.expand(shared, a, t.shape).flatten(1) - t.kernel_on).abs().max())
        for a, t in zip(adapters, targets, strict=True)
    ]
    (medoid,) = [place for place, target in enumerate(targets) if torch.equal(shared["P"].flatten(1), target.kernel_on)]
    assert gaps[medoid] < 1e-6


@pytest.mark.parametrize("start", ["tie", "lstsq", "norm"])
def test_kerneldnas_residual_of_full_rank_is_exact(start: str) -> None:
    scheme = make("kerneldna", {"start": start, "residual_rank": min(6, 4 * 9)})
    assert error_of(scheme, aims(KERNELS)) < 1e-12


def test_kerneldnas_least_squares_fit_is_no_worse_than_its_tie() -> None:
    errors = {start: error_of(make("kerneldna", {"start": start}), aims(KERNELS)) for start in ("tie", "lstsq")}
    assert errors["lstsq"] <= errors["tie"]


def test_kerneldna_tries_each_start_only_when_it_is_to_choose() -> None:
    assert make("kerneldna", {}).variants() == ({"start": "tie"}, {"start": "lstsq"}, {"start": "norm"})
    assert make("kerneldna", {"start": "norm"}).variants() == ({},)


def test_a_fitted_parent_serves_all_better_than_the_medoid() -> None:
    fitted, medoid = (
        error_of(make("kerneldna", {"start": "lstsq", "parent": p}), aims(KERNELS)) for p in ("fitted", "medoid")
    )
    assert fitted < medoid
