"""Training codes: weights are rounded in the forward pass, bits have a price, and the file does not grow."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.coded import coded, entropy_coded
from support.fine_tuning import KilledError, kill_at
from support.small_nets import small
from torch import Tensor, nn

from kdna_convert.api.code import codes_of
from kdna_convert.api.finetune import finetune
from kdna_convert.codecs.quantization_steps import step_of
from kdna_convert.core.errors import RecipeError
from kdna_convert.inputs.models import Loaded
from kdna_convert.network.folder import Conversion
from kdna_convert.network.folder.report import CodeReport, Report
from kdna_convert.network.packed import steps_of, unpack
from kdna_convert.network.stored import stored_state
from kdna_convert.stages.finetune import Codes, RunFiles, Settings, Student
from kdna_convert.stages.finetune import finetune as finetune_net

STEP = 0.25


def codes(weight: Tensor, price: float = 0.0) -> Codes:
    return Codes({"weight": nn.Parameter(weight)}, {"weight": STEP}, lambda: True, price)


def images(count: int = 80) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(2))


def trained(conversion: Conversion, monkeypatch: pytest.MonkeyPatch, steps: int = 30) -> Conversion:
    original = small(0)
    monkeypatch.setattr(
        "kdna_convert.api.finetune.original_of",
        lambda made: Loaded(copy.deepcopy(original), made.plan.model, made.data),
    )
    return finetune(conversion, data=images(), train="codes", steps=steps, batch_size=16, shared_lr=0.1, device="cpu")


def test_weights_are_rounded_only_during_the_forward_pass() -> None:
    numbers = torch.tensor([[0.3, -0.1], [0.9, 0.12]])
    trained_codes = codes(numbers.clone())
    with trained_codes.rounded():
        assert torch.equal(trained_codes.tensors["weight"], torch.tensor([[0.25, 0.0], [1.0, 0.0]]))
    assert torch.equal(trained_codes.tensors["weight"], numbers)
    trained_codes.round_in_place()
    assert torch.equal(trained_codes.tensors["weight"] / STEP, (numbers / STEP).round())


def test_the_gradient_of_the_bits_points_to_zero_and_is_largest_in_sparse_rows() -> None:
    weight = STEP * torch.tensor([[3.0, -2.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    priced = codes(weight, price=1.0)
    priced.tensors["weight"].grad = torch.zeros(2, 4)
    priced.charge(1.0)
    pull = priced.tensors["weight"].grad
    assert torch.equal(pull.sign(), weight.sign())
    assert pull[1, 0] > pull[0, 0]  # a row of one is dearer than a row of three
    assert pull[0, 2] > pull[0, 0]


def test_the_price_rises_with_more_bits_and_falls_with_fewer() -> None:
    priced = codes(STEP * torch.tensor([[3.0, -2.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
    weight = priced.tensors["weight"]
    priced.charge(8.0)
    assert priced.price == pytest.approx(8.0 / priced.bits, rel=0.01)  # all the bits there are cost what the loss is
    for factor, rises in ((2.0, True), (0.0, False)):
        before = priced.price
        with torch.no_grad():
            weight.copy_(STEP * factor * torch.ones(2, 4))
        priced.charge(8.0)
        assert (priced.price > before) is rises


def test_trained_codes_lower_the_divergence_within_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = entropy_coded()
    tuned = trained(conversion, monkeypatch)
    before, after = tuned.report.finetune.before, tuned.report.finetune.after
    assert tuned.report.finetune.kept
    assert after.kl < 0.8 * before.kl
    assert tuned.coded is not None
    assert tuned.plan.planned.bytes <= conversion.report.code.target
    assert steps_of(tuned.coded) == steps_of(conversion.coded or b"")
    old, new = unpack(conversion.coded or b""), unpack(tuned.coded)
    assert any(not torch.equal(old[name], new[name]) for name in codes_of(conversion, conversion.model).tensors)
    stored = stored_state(tuned.model)
    assert all(torch.equal(stored[name], tensor) for name, tensor in new.items())


def test_a_net_that_would_not_fit_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = entropy_coded()
    # as it is, and no byte more
    conversion.report = Report(code=CodeReport("entropy", 0, conversion.plan.planned.bytes))
    tuned = trained(conversion, monkeypatch)
    assert tuned.plan.planned.bytes <= conversion.plan.planned.bytes


def test_only_entropy_coded_folders_can_train_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = coded("int8")
    conversion.report = Report(code=CodeReport("int8", conversion.plan.planned.bytes, None))
    for other in (conversion, replace(conversion, coded=None)):
        with pytest.raises(RecipeError, match=r"KD208: train: codes are those of a folder that `kdna code"):
            trained(other, monkeypatch)


def test_a_killed_run_of_codes_resumes_to_the_bit(tmp_path: Path) -> None:
    conversion = entropy_coded()

    def run(work: Path | None, until: int | None = None, resume: bool = False) -> dict[str, Tensor]:
        model = copy.deepcopy(conversion.model)
        settings = Settings(train="codes", steps=12, batch_size=16, shared_lr=0.1, save_every=4)
        own = codes_of(conversion, model)
        student, files = Student(model, small(0), codes=own), RunFiles(work, resume, "mine")
        finetune_net(student, images(), settings, files=files, progress=kill_at(until))
        names = {id(tensor): name for name, tensor in own.tensors.items()}
        for tensor in own.tensors.values():
            step = step_of(steps_of(conversion.coded or b"")[names[id(tensor)]])
            assert torch.allclose(tensor / step, (tensor / step).round(), atol=1e-4)
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    straight = run(None)
    with pytest.raises(KilledError):
        run(tmp_path / "work", until=7)
    resumed = run(tmp_path / "work", resume=True)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in straight.items())
