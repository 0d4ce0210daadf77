"""Several fine-tunes of one net: the same shared tensors in every folder, which each load alone."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert import Conversion, Recipe
from kdna_convert.core.errors import KdnaError
from kdna_convert.core.tensorfile import load_tensors
from kdna_convert.inputs.digits import WEIGHTS, DigitsNet, digits, digits_net
from kdna_convert.network.derive import derived_layers

QUICK: dict[str, Any] = {
    "calibration": {"images": 64, "heldout": 32, "batch": 32},
    "fit": {"sweeps": 5},
    "repair": ["refit"],
    "budget": {"params": 0.3},
}


def recipe(**keys: Any) -> Recipe:
    return Recipe.model_validate({"scheme": "basis", **QUICK, **keys})


def tuned(seed: int, classes: int = 10) -> DigitsNet:
    """The bundled net as a fine-tune leaves it: every weight moved a little, and another classifier."""
    generator = torch.Generator().manual_seed(seed)
    net = digits_net()
    net.load_state_dict(load_tensors(WEIGHTS)[0])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    if classes != 10:
        net.fc = nn.Linear(32, classes)
        net.num_classes = classes
    return net.eval()


def images() -> Tensor:
    return digits("train")[0][:128]


@cache
def banked() -> tuple[Conversion, ...]:
    return kdna.bank([tuned(1), tuned(2), tuned(3)], recipe=recipe(), data=images())


def shared(conversion: Conversion) -> dict[str, Tensor]:
    own = {name: layer for name, layer in derived_layers(conversion.model).items() if layer.is_owner}
    return {f"{name}.{letter}": tensor for name, layer in own.items() for letter, tensor in layer.shared.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return bool(one) and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_shared_tensors_are_the_same_bit_for_bit_after_the_repair() -> None:
    first, *others = banked()
    assert any(step.kept for conversion in banked() for step in conversion.report.repair or ())
    assert all(equal(shared(first), shared(other)) for other in others)


def test_every_folder_loads_alone_as_the_net_that_was_saved(tmp_path: Path) -> None:
    for number, conversion in enumerate(banked()):
        folder = kdna.save(conversion, tmp_path / str(number))
        loaded = kdna.load(folder, model=digits_net())
        assert torch.equal(loaded(images()[:8]), conversion.model(images()[:8]))


def test_an_update_between_two_of_them_leaves_the_shared_tensors_out(tmp_path: Path) -> None:
    one, other = (kdna.save(conversion, tmp_path / str(n)) for n, conversion in enumerate(banked()[:2]))
    update = kdna.diff(one, other, tmp_path / "update")
    assert update.equal >= len(shared(banked()[0]))
    assert update.bytes < update.whole
    again = kdna.patch(one, tmp_path / "update", tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_the_size_is_that_of_all_nets_with_shared_tensors_counted_once() -> None:
    together = sum(tensor.numel() for tensor in shared(banked()[0]).values())
    alone = [conversion.plan.planned.params - together for conversion in banked()]
    whole = sum(conversion.plan.original.params for conversion in banked())
    assert 0.27 * whole < together + sum(alone) <= 0.3 * whole
    assert all(conversion.plan.planned.params < conversion.plan.original.params for conversion in banked())


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module) -> float:
    return float((one(images()) - other(images())).square().sum())


def test_each_net_is_near_its_own_original_and_not_the_others() -> None:
    nets = [tuned(1), tuned(2), tuned(3)]
    for number, conversion in enumerate(banked()):
        distances = [distance(conversion.model, net) for net in nets]
        assert min(range(3), key=distances.__getitem__) == number


def test_equal_nets_lose_no_more_together_than_one_of_them_at_the_size_that_each_then_has() -> None:
    """Three equal nets at 0.3 of their parameters: one alone has them nearly all."""
    same = kdna.bank([tuned(1)] * 3, recipe=recipe(repair=[]), data=images())
    alone = kdna.convert(tuned(1), recipe=recipe(repair=[]), data=images())
    errors = [conversion.report.divergence.logit_error for conversion in (*same, alone) if conversion.report.divergence]
    assert len(errors) == 4
    assert max(errors[:3]) < errors[3] / 3


def test_other_classifiers_and_data_for_each_net_are_fine() -> None:
    nets = [tuned(1), tuned(2, classes=4)]
    one, other = kdna.bank(nets, recipe=recipe(repair=[]), data=[images(), images().flip(3)])
    assert one.model(images()[:2]).shape[1] == 10
    assert other.model(images()[:2]).shape[1] == 4
    assert equal(shared(one), shared(other))


def test_a_later_fine_tune_takes_the_shared_tensors_of_a_folder(tmp_path: Path) -> None:
    folder = kdna.save(banked()[0], tmp_path / "first")
    opened = kdna.open_folder(folder, model=digits_net())
    (later,) = kdna.bank(tuned(4), shared=opened, data=images())
    assert equal(shared(banked()[0]), shared(later))
    assert later.plan.families == banked()[0].plan.families
    measured, first = later.report.divergence, banked()[0].report.divergence
    assert measured is not None
    assert first is not None
    assert measured.logit_error < 10 * first.logit_error


def wider() -> DigitsNet:
    net = tuned(2)
    net.blocks[0].conv1 = nn.Conv2d(32, 32, 5, padding=2, bias=False)  # type: ignore[union-attr]
    return net


def other_layers() -> Any:
    return kdna.bank([tuned(1), wider()], recipe=recipe(), data=images())


def other_folder() -> Any:
    return kdna.bank(wider(), shared=banked()[0], data=images())


def coded() -> Any:
    return kdna.bank(tuned(4), shared=kdna.code(banked()[0], codec="int8"), data=images())


REFUSED: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "other layers": ("KD512", "blocks.0.conv1", other_layers),
    "a folder of another net": ("KD503", "another model", other_folder),
    "one net": ("KD512", "shares with nothing", lambda: kdna.bank([tuned(1)], data=images())),
    "a coded folder": ("KD512", "before `kdna code`", coded),
    "a scheme without shared tensors": (
        "KD512",
        "lowrank",
        lambda: kdna.bank([tuned(1), tuned(2)], recipe=recipe(scheme="lowrank"), data=images()),
    ),
    "a codec": ("KD512", "codec", lambda: kdna.bank([tuned(1), tuned(2)], recipe=recipe(codec="int8"))),
    "nested": ("KD512", "nested", lambda: kdna.bank([tuned(1), tuned(2)], recipe=recipe(nested=True))),
    "a routing": ("KD512", "routing", lambda: kdna.bank([tuned(1), tuned(2)], recipe=recipe(routing="se"))),
    "a size beside a folder": (
        "KD506",
        "leave the size out",
        lambda: kdna.bank(tuned(4), shared=banked()[0], target_params=0.2),
    ),
    "no size": ("KD504", "--target-params", lambda: kdna.bank([tuned(1), tuned(2)], recipe=recipe(budget=None))),
    "too little data": ("KD512", "one for each", lambda: kdna.bank([tuned(1), tuned(2)], data=[images()])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_share_is_refused_before_the_work(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, why, call = REFUSED[case]
    banked()

    def calibrated(*_: Any) -> None:
        raise AssertionError("the calibration began")

    monkeypatch.setattr("kdna_convert.api.bank.moments_of", calibrated)
    with pytest.raises(KdnaError) as refused:
        call()
    assert refused.value.code == code
    assert why in refused.value.message
