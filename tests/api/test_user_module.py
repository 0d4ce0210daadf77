"""A user's own module and tensors in Python: every verb takes them, in their own size, or says what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.core.errors import DataError, PlanError
from kdna_convert.inputs.models import state_digest
from kdna_convert.inputs.recipe import Recipe

pytestmark = pytest.mark.usefixtures("quick_predictions")

IMAGES = tiny.noise(24)


class Plain(nn.Module):
    """A net that says nothing about its input."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.body = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


def plain(channels: int = 3) -> Plain:
    torch.manual_seed(0)
    return Plain(channels).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def recipe(**more: Any) -> Recipe:
    return Recipe(scheme="cp", **{"fit": {"sweeps": 3}, **more})  # type: ignore[arg-type]


def converted(net: nn.Module, data: Any = IMAGES, **more: Any) -> kdna.Conversion:
    return kdna.convert(net, recipe=recipe(), data=data, target_params=0.6, **more)


@pytest.fixture(scope="module")
def whole() -> kdna.Conversion:
    """A conversion of the tiny net."""
    return converted(tiny.net())


@pytest.mark.parametrize(("channels", "size"), [(3, 12), (1, 8)])
def test_a_net_is_surveyed_in_the_size_of_the_tensors(channels: int, size: int, tmp_path: Path) -> None:
    net, data = plain(channels), noise(20, channels, size, size)
    conversion = converted(net, data)
    assert conversion.data.input_size == (channels, size, size)
    assert conversion.plan.original.macs == 72 * size**2 * (channels + 3 * 8) + 8 * 4
    kdna.save(conversion, tmp_path / "net")
    assert kdna.open_folder(tmp_path / "net", model=plain(channels)).data == conversion.data
    assert kdna.evaluate(net, data=data).macs == conversion.plan.original.macs
    assert kdna.plan(net, recipe=recipe(), data=[data], target_params=0.6).original == conversion.plan.original


def test_an_input_size_that_is_given_is_kept() -> None:
    seen = kdna.analyze(plain(), data=noise(20, 3, 12, 12), inputs={"input_size": (3, 6, 6)})
    assert seen.layers[0].out_positions == 36


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (noise(4, 1, 16, 16), r"\(1, 16, 16\).*\(3, 16, 16\)"),
        (noise(3, 16, 16), r"\(16, 16\)"),
        (noise(4, 2, 3, 16, 16), r"\(2, 3, 16, 16\)"),
        (noise(4), "channels, height, width"),
        (torch.tensor(1.0), "a single number"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "uint8"),
        ([noise(2, 3, 16, 16), noise(2, 3, 8, 8)], r"\(3, 16, 16\) and \(3, 8, 8\)"),
        ([5], "int"),
    ],
)
@pytest.mark.parametrize("verb", ["convert", "evaluate", "finetune"])
def test_tensors_that_the_net_cannot_take_are_named_with_their_shape(
    verb: str, data: Any, named: str, whole: kdna.Conversion
) -> None:
    net = tiny.net()
    verbs: dict[str, Callable[[], object]] = {
        "convert": lambda: converted(net, data),
        "evaluate": lambda: kdna.evaluate(net, data=data),
        "finetune": lambda: kdna.finetune(whole, data=data, steps=1),
    }
    with pytest.raises(DataError, match=f"(?s){named}") as error:
        verbs[verb]()
    assert error.value.code == "KD406"


@pytest.mark.parametrize("verb", ["convert", "evaluate"])
def test_an_empty_tensor_is_refused(verb: str) -> None:
    with pytest.raises(DataError, match="KD401: the data holds no image"):
        getattr(kdna, verb)(tiny.net(), data=torch.zeros(0, 3, 16, 16))


def test_a_teacher_that_is_the_original_takes_its_place(tmp_path: Path) -> None:
    net = tiny.net_with_statistics()
    kdna.save(converted(net), tmp_path / "net")
    opened = kdna.open_folder(tmp_path / "net", model=tiny.net())
    tuned = kdna.finetune(opened, data=IMAGES, teacher=net, steps=2, batch_size=8)
    assert tuned.report.finetune is not None
    assert tuned.report.finetune.teacher is None
    assert kdna.evaluate(tuned, data=IMAGES).agreement is not None


def test_another_module_teaches_under_its_name() -> None:
    net, teacher = tiny.net_with_statistics(), tiny.net_with_statistics(seed=1)
    before = state_digest(teacher)
    tuned = kdna.finetune(converted(net), data=IMAGES, teacher=teacher, steps=2, batch_size=8)
    assert tuned.report.finetune is not None
    assert tuned.report.finetune.teacher == "support.tiny:Net"
    assert state_digest(teacher) == before


def test_a_module_runs_a_whole_recipe_and_the_same_call_reads_it(tmp_path: Path) -> None:
    net = tiny.net_with_statistics()
    whole = recipe(finetune={"steps": 2, "batch_size": 8}, budget={"params": 0.6})
    runs = [kdna.run(net, recipe=whole, data=IMAGES, output=tmp_path / "out") for _ in range(2)]
    done = [run.report.run for run in runs]
    assert all(one is not None for one in done)
    assert [row.stage for row in done[0].stages] == ["convert", "finetune"]  # type: ignore[union-attr]
    assert [one.was_there for one in done] == [False, True]  # type: ignore[union-attr]
    assert state_digest(kdna.load(tmp_path / "out", model=tiny.net())) == state_digest(runs[0].model)


def test_without_images_as_many_inputs_of_noise_are_made_as_the_recipe_says() -> None:
    steps: list[tuple[str, int, int]] = []
    few = recipe(calibration={"images": 70}, options={"rank": 4})
    kdna.convert(tiny.net(), recipe=few, progress=lambda *step: steps.append(step))
    assert ("calibrate", 3, 3) in steps  # batches of 32


def test_a_folder_whose_name_builds_another_net_asks_for_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))]
    net = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    folder = kdna.save(converted(net), tmp_path / "out")
    for folded in (False, True):
        with pytest.raises(PlanError, match=r"KD503: .*build it yourself and pass model="):
            kdna.load(folder, folded=folded)
    assert kdna.load(folder, model=net)


def test_the_users_own_module_keeps_its_weights_and_the_mode_of_each_layer() -> None:
    net = plain().train()
    net.body[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    converted(net)
    modes = {name: module.training for name, module in net.named_modules()}
    assert modes == {name: name != "body.1" for name in modes}
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
