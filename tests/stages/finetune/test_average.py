"""The moving average of a fine-tune: its formula, its independence of the steps, and its use as the result."""

from pathlib import Path

import pytest
import torch
from support.fine_tuning import KilledError, finetune, images, killed_and_resumed, pair, run, same, state
from torch import nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.finetune.average import Average
from kdna_convert.stages.finetune.rate import Schedule
from kdna_convert.stages.finetune.training_state import read


def test_an_average_has_its_decay_and_a_faster_start() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average = Average({"w": weight}, 0.8)
    expected = torch.zeros(3)
    for step in range(1, 40):
        with torch.no_grad():
            weight.add_(torch.tensor([1.0, -2.0, step]))
        average.follow(step)
        decay = min(0.8, 1 - step ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weight.detach()
    assert torch.allclose(average.tensors["w"], expected)
    assert not torch.allclose(expected, weight.detach())


def test_the_net_holds_the_average_only_inside_the_context() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average = Average({"w": weight}, 0.5)
    for step in (1, 2, 3):
        with torch.no_grad():
            weight.add_(1)
        average.follow(step)
    with average.shown():
        assert torch.equal(weight, average.tensors["w"])
        assert not torch.equal(weight, torch.full((3,), 3.0))
    assert torch.equal(weight, torch.full((3,), 3.0))


def test_without_a_decay_the_average_is_the_net() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average = Average({"w": weight}, 0.0)
    assert average.tensors["w"] is weight
    assert average.kept == {}


def test_an_average_changes_no_step_and_is_what_is_kept() -> None:
    runs = {}
    for ema in (0.0, 0.95):
        model, original = pair()
        held = images(64, seed=1)
        tuned = finetune(model, original, images(), heldout=held, epochs=5, batch_size=32, lr=1e-2, ema=ema)
        assert divergence(outputs_of(model, [held]), outputs_of(original, [held])) == tuned.after
        runs[ema] = (tuned, state(model))
    assert runs[0.0][0].losses == runs[0.95][0].losses
    assert runs[0.0][0].after != runs[0.95][0].after


def test_the_average_of_steps_that_are_too_long_is_closer_than_the_last_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = Schedule.set
    monkeypatch.setattr(Schedule, "set", lambda schedule, done, factor: true(schedule, 0.2, factor))  # no decay
    kls = []
    for ema in (0.0, 0.97):
        model, original = pair()
        options = {"train": "all", "epochs": 6, "batch_size": 8, "lr": 0.3, "save_every": 10**6, "ema": ema}
        finetune(model, original, images(), **options)
        held = images(256, seed=1)
        kls.append(divergence(outputs_of(model, [held]), outputs_of(original, [held])).kl)
    assert kls[1] < 0.9 * kls[0]


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, until=7, ema=0.9)
    left = read(tmp_path, "mine")
    assert left is not None
    held, kls = [images(64, seed=1)], []
    for tensors in (left.average, left.now):
        net, original = pair()
        net.load_state_dict(tensors, strict=False)
        kls.append(divergence(outputs_of(net, held), outputs_of(original, held)).kl)
    assert left.numbers.kls[-1] == pytest.approx(kls[0], rel=1e-4)
    assert kls[1] != pytest.approx(kls[0], rel=1e-2)


@pytest.mark.parametrize("until", [1, 7, 11])
def test_a_killed_run_resumes_with_its_average_to_the_bit(until: int, tmp_path: Path) -> None:
    left = killed_and_resumed(tmp_path, until, ema=0.9)
    assert set(left.average) == set(left.now)
    assert not same(run(None), run(None, ema=0.9))


@pytest.mark.parametrize("ema", [-0.1, 1.0])
def test_an_invalid_decay_is_refused(ema: float) -> None:
    with pytest.raises(RecipeError, match="KD208: ema"):
        finetune(*pair(), images(), ema=ema)
