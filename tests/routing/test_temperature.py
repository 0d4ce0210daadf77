"""The temperature of an attention: it does not change a new net, falls during a fine-tune, and is resumed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.clock import Clock
from support.fine_tuning import finetune, images, killed_and_resumed, state
from support.routings import described
from torch import nn

from kdna_convert.routing import ROUTINGS, attach
from kdna_convert.routing.temperature import Annealing, anneal, temperature_at


def routed(**options: Any) -> tuple[nn.Module, nn.Module]:
    """A net that is away from its original, with a temperature at its first convolution, and the original."""
    torch.manual_seed(0)
    original = nn.Sequential(
        nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()
    model = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    attach(model, [described("0", original[0])], ROUTINGS["dyconv"](**options))
    return model, original


def test_the_temperature_falls_to_1_in_the_first_third_and_stays_there() -> None:
    assert [temperature_at(31, done) for done in (0, 1 / 6, 1 / 3, 0.5, 1)] == pytest.approx([31, 16, 1, 1, 1])
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    for name, options in (("0", {"of": {"name": "omni"}}), ("1", {})):
        attach(net, [described(name, net[int(name)])], ROUTINGS["partial" if options else "dyconv"](**options))
    anneal(net, 1 / 6)
    assert float(net[0].gate.whole.temperature) == float(net[1].gate.temperature) == 15.5
    annealing = Annealing(net)
    annealing.set(1.0)
    assert {name: float(tensor) for name, tensor in annealing.tensors.items()} == {
        "0.gate.whole.temperature": 1.0,
        "1.gate.temperature": 1.0,
    }
    Annealing(net).set(0.0)
    assert float(net[1].gate.temperature) == 1.0  # what has temperature_at stays cool in a second training


def test_at_the_start_no_temperature_changes_the_net() -> None:
    net = nn.Sequential(nn.Conv2d(8, 4, 3))
    attach(net, [described("0", net[0])], ROUTINGS["omni"](kernels=4))
    x, outputs = torch.randn(2, 8, 5, 5), []
    for temperature in (30.0, 7.0, 1.0):
        net[0].gate.temperature.fill_(temperature)
        outputs.append(net(x))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def temperatures(model: nn.Module, original: nn.Module, **options: Any) -> list[float]:
    """The temperature at every step of a fine-tune."""
    values: list[float] = []
    finetune(model, original, images(), progress=lambda *_: values.append(float(model[0].gate.temperature)), **options)
    return values


def test_a_fine_tune_of_some_steps_sets_the_temperature_by_the_step() -> None:
    model, original = routed()
    recorded = temperatures(model, original, steps=12, batch_size=32)
    assert recorded == pytest.approx([temperature_at(30, (step + 0.5) / 12) for step in range(12)])
    assert float(model[0].gate.temperature) == 1.0


def test_a_fine_tune_of_some_seconds_sets_the_temperature_by_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = routed()
    clock, recorded = Clock(), list[float]()
    monkeypatch.setattr("time.monotonic", clock)

    def progress(*_: object) -> None:
        recorded.append(float(model[0].gate.temperature))
        clock.advance(0.125)

    finetune(model, original, images(), seconds=1.0, batch_size=8, progress=progress)
    passed = [0.0, *(0.125 * step for step in range(8))]  # at the end of the step before
    assert recorded == pytest.approx([temperature_at(30, time) for time in passed])


def test_a_killed_run_resumes_at_the_temperature_of_the_straight_one(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 8, nets=routed, train="adapters", epochs=12)  # killed while it falls
    assert "0.gate.temperature" in routed()[0].state_dict()


def test_the_best_state_keeps_its_temperature() -> None:
    model, original = routed()
    before, held = state(model), images(64, seed=1)
    tuned = finetune(model, original, images(), heldout=held, steps=6, batch_size=32, save_every=2, lr=50.0)
    assert not tuned.kept  # the rate was far too high, so the start was the best
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert float(copy.deepcopy(model)[0].gate.temperature) == 30.0
