"""Nets that people have and benchmarks do not: each converts, saves, loads and verifies, or is refused with a code."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command import NET
from support.commands import commands
from support.tiny import Net, net_with_statistics, noise
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import kdna_convert as kdna
from kdna_convert.core.errors import KdnaError
from kdna_convert.inputs.models import unwrapped_copy
from kdna_convert.inputs.recipe import load_recipe
from kdna_convert.network.folder import Conversion, original_of

RECIPE = load_recipe("lowrank", ["calibration.images=12", "calibration.heldout=4"])


def takes(command: Any, option: str) -> bool:
    return any(option in parameter.opts for parameter in command.params)


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
    conversion = converted(OneByOne(), data=noise(16))
    assert conversion.plan.families
    assert any("KD119" in note for note in conversion.report.notes)


def test_a_net_without_gradients_is_converted_and_says_so() -> None:
    conversion = converted(WithoutGradient(), data=noise(16))
    assert conversion.plan.families
    assert any("KD118" in note for note in conversion.report.notes)


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


class Noisy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


def test_a_net_that_draws_random_numbers_verifies(tmp_path: Path) -> None:
    folder = kdna.save(converted(Noisy(), data=noise(16)), tmp_path / "noisy")
    assert [check for check in kdna.verify(folder, model=Noisy()) if not check.ok] == []


def test_the_weights_that_are_taken_from_a_checkpoint_are_named_and_found_again(tmp_path: Path) -> None:
    states = {name: net_with_statistics(seed).state_dict() for seed, name in enumerate(("state_dict_ema", "raw"))}
    torch.save({**states, "best": np.float32(0.9)}, tmp_path / "last.pth")
    for key in (None, "raw"):
        made = kdna.convert(
            NET, recipe=RECIPE, data=noise(16), target_params=0.6, checkpoint=f"{tmp_path}/last.pth", checkpoint_key=key
        )
        name = key or "state_dict_ema"
        assert any(f"under {name} in last.pth" in note for note in made.report.notes)
        original = original_of(made).model.state_dict()
        assert all(torch.equal(original[key], tensor) for key, tensor in states[name].items())


def test_a_checkpoint_key_without_a_checkpoint_is_refused() -> None:
    with pytest.raises(KdnaError, match="KD304"):
        kdna.analyze(NET, recipe=RECIPE, checkpoint_key="ema")


@pytest.mark.parametrize("words", [words for words, command in commands().items() if takes(command, "--checkpoint")])
def test_every_command_with_a_checkpoint_takes_its_key_and_prefix(words: tuple[str, ...]) -> None:
    command = commands()[words]
    assert takes(command, "--checkpoint-key")
    assert takes(command, "--checkpoint-prefix")


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def with_parametrized_bias() -> nn.Module:
    net = net_with_statistics()
    net.blocks[0].conv1.bias = nn.Parameter(torch.linspace(-1, 1, 12))
    parametrize.register_parametrization(net.blocks[0].conv1, "bias", Doubled())
    return net


def with_old_weight_norm() -> nn.Module:
    net = net_with_statistics()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net.blocks[0].conv1)
    return net


def pruned() -> nn.Module:
    net = net_with_statistics()
    prune.l1_unstructured(net.blocks[0].conv1, "weight", 0.5)
    return net


def hooked() -> nn.Module:
    net = net_with_statistics()
    net.blocks[0].conv1.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    return net


class ReadingWeights(Net):
    """Reads the weights of its layers besides running them."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.blocks[0].conv1.weight.dtype)
        return super().forward(x) * self.blocks[1].conv2.weight.abs().mean()


def reading_weights() -> nn.Module:
    net = ReadingWeights()
    net.load_state_dict(net_with_statistics().state_dict())
    return net.eval()


class OwnConv(nn.Conv2d):
    pass


def subclassed() -> nn.Module:
    net = net_with_statistics()
    net.blocks[0].conv1.__class__ = OwnConv
    return net


def grouped() -> nn.Module:
    net = net_with_statistics()
    net.blocks[0].conv1 = nn.Conv2d(12, 12, 3, padding=1, groups=2)
    with torch.no_grad():
        net.blocks[0].conv1.weight.copy_(torch.sin(torch.arange(12 * 6 * 9.0)).view(12, 6, 3, 3))
        net.blocks[0].conv1.bias.zero_()
    return net


UNUSUAL = {
    "parametrized bias": with_parametrized_bias,
    "old weight norm": with_old_weight_norm,
    "pruned": pruned,
    "hooks": hooked,
    "reads weights": reading_weights,
    "DataParallel": lambda: nn.DataParallel(net_with_statistics()),
    "subclass": subclassed,
    "grouped": grouped,
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_net_travels_through_a_folder(kind: str, tmp_path: Path) -> None:
    build = UNUSUAL[kind]
    made = converted(build(), data=noise(16))
    folder = kdna.save(made, tmp_path / "out")
    x = noise(4, seed=2)
    with torch.no_grad():
        expected = made.model(x)
        for folded in (False, True):
            loaded = kdna.load(folder, folded=folded, model=unwrapped_copy(build()))
            torch.testing.assert_close(loaded(x), expected)
        torch.testing.assert_close(kdna.factor(copy.deepcopy(made.model))(x), expected, rtol=1e-4, atol=1e-4)
    assert [check for check in kdna.verify(folder, model=unwrapped_copy(build())) if not check.ok] == []
