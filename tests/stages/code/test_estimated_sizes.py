"""The size of a net at a step: estimated without coding it, and met by correcting the step on the way."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from kdna_convert.codecs.quantization_steps import PER_OCTAVE, step_of
from kdna_convert.network.packed import entropy_bytes, pack
from kdna_convert.stages.code.estimated_sizes import OCTAVES, Pace, Sizes, sizes_of, total

NUMBERS = {"0.weight": -40, "1.weight": 20}


def net() -> nn.Module:
    draw = torch.distributions.Laplace(0.0, 1.0)
    layers = nn.Sequential(nn.Conv2d(48, 64, 3, bias=False), nn.Conv2d(64, 48, 3, bias=False))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for layer in layers:
            layer.weight.copy_(draw.sample(layer.weight.shape))
    return layers


def coded(before: nn.Module, coarser: int, noise: float) -> tuple[nn.Module, dict[str, int], bytes]:
    """The net rounded with this noise, in units of a step, its steps and its bytes."""
    after, steps = copy.deepcopy(before), {name: step + coarser for name, step in NUMBERS.items()}
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in after.named_parameters():
            step = step_of(steps[name])
            weight.copy_((weight / step + noise * torch.randn(weight.shape, generator=draw)).round() * step)
    return after, steps, pack(after, "entropy", steps)


def sizes(before: nn.Module, noise: float) -> Sizes:
    return sizes_of(before, *coded(before, 0, noise), Pace(1.0))


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("coarser", [-32, 16, 48])
def test_the_size_at_another_step_is_estimated_within_one_percent(noise: float, coarser: int) -> None:
    before = net()
    near = sizes(before, noise)
    estimate = near.fixed + near.rate * near.bits_at(2 ** (coarser / PER_OCTAVE), total(near.curves.values()))
    assert estimate == pytest.approx(len(coded(before, coarser, noise)[-1]), rel=0.01)


def test_the_rest_of_the_file_does_not_depend_on_the_step() -> None:
    before = net()
    estimate = sizes(before, 0.0)
    _, _, blob = coded(before, 0, 0.0)
    assert estimate.fixed + entropy_bytes(blob) == len(blob)
    assert estimate.delta_for(len(blob)) == pytest.approx(1.0)
    assert estimate.grown(1.1).delta_for(len(blob)) > 1.0


def integers(bits: float) -> Tensor:
    """5,000 integers, equally often each, of about so many bits."""
    return torch.arange(5000) % round(2**bits)


@pytest.mark.parametrize("surplus", [-0.09, 0.0, 0.09])
def test_layers_that_take_more_bits_than_expected_make_the_others_coarser(surplus: float) -> None:
    curve = 5000 * (6 - OCTAVES)
    expected = Sizes(1.0, {str(layer): curve for layer in range(20)}, 100, 1 / 8)
    pace, took = Pace(1.0, expected, 100 + 20 * 5000 * 6 / 8), 0.0
    for layer in range(20):
        bits = 6 + surplus - math.log2(pace.delta)
        took += 5000 * bits
        pace.coded(str(layer), integers(bits))
    assert took == pytest.approx(20 * 5000 * 6, rel=0.005)
    assert pace.mean == pytest.approx(2**surplus, rel=0.02)


def test_a_pace_without_sizes_keeps_its_step() -> None:
    pace = Pace(0.3)
    pace.coded("a", integers(3))
    assert pace.delta == pace.mean == pace.deltas["a"] == 0.3
