"""Nets that people have and benchmarks do not: each converts, saves, loads and verifies, or is refused with a code."""

from typing import Any

import pytest
import torch
from support.tiny import Net, noise
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.errors import KdnaError
from kdna_convert.inputs.recipe import load_recipe
from kdna_convert.network.folder import Conversion

RECIPE = load_recipe("lowrank", ["calibration.images=12", "calibration.heldout=4"])


def converted(net: nn.Module, **options: Any) -> Conversion:
    return kdna.convert(net, recipe=RECIPE, target_params=0.6, **options)


class OneByOne(Net):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 1, "one image at a time"
        return super().forward(x)


class WithoutGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(super().forward(x).detach().numpy())


def test_a_net_that_takes_one_image_at_a_time_is_calibrated_so() -> None:
    made = converted(OneByOne(), data=noise(16))
    assert made.plan.families
    assert any("KD119" in note for note in made.report.notes)


def test_a_net_without_gradients_is_converted_and_says_so() -> None:
    made = converted(WithoutGradient(), data=noise(16))
    assert made.plan.families
    assert any("KD118" in note for note in made.report.notes)


def test_an_ordinary_net_says_nothing_of_batches_or_gradients() -> None:
    assert not [note for note in converted(Net(), data=noise(16)).report.notes if "KD11" in note]


class Perceptron(Net):
    """One convolution, which is the first, and linear layers."""

    def __init__(self, width: int = 12) -> None:
        super().__init__(width, blocks=0)
        self.fc = nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5))


class WideHead(Net):
    def __init__(self) -> None:
        super().__init__(blocks=1)
        self.fc = nn.Sequential(nn.Linear(12, 60), nn.Linear(60, 60), nn.Linear(60, 5))


class WideStem(Net):
    def __init__(self) -> None:
        super().__init__(blocks=0)
        self.stem = nn.Conv2d(3, 12, 7, padding=3)


@pytest.mark.parametrize(("net", "code"), [(Perceptron(), "KD306"), (WideHead(), "KD501"), (WideStem(), "KD306")])
def test_what_the_error_suggests_to_include_is_converted(net: nn.Module, code: str) -> None:
    with pytest.raises(KdnaError, match=rf"{code}: .*--set include=") as error:
        converted(net, data=noise(16))
    included = error.value.message.rpartition("--set ")[2]
    again = load_recipe("lowrank", ["calibration.images=12", "calibration.heldout=4", included])
    assert kdna.convert(net, recipe=again, data=noise(16), target_params=0.8).plan.families
