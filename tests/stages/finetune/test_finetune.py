"""Fine-tuning: the net comes closer to the original, only the chosen parts train, and failures are undone."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.clock import Clock
from support.fine_tuning import changed, finetune, images, pair, same, state
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdna_convert.core.errors import DataError, GuardError, ModelError, RecipeError
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.finetune import RunFiles, rate
from kdna_convert.stages.finetune.engine import Engine
from kdna_convert.stages.finetune.rate import CARE, Schedule, fitting_rate
from kdna_convert.tasks import TASKS, distillation

SEQUENCE = TASKS["sequence"]


def test_the_net_comes_closer_to_the_original_on_images_it_was_not_trained_on() -> None:
    model, original = pair()
    held = images(64, seed=1)
    tuned = finetune(model, original, images(), heldout=held, epochs=30, batch_size=32, lr=1e-2, save_every=30)
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.after.kl < 0.7 * tuned.before.kl
    assert tuned.losses[-1] < tuned.losses[0]
    assert (tuned.steps, tuned.kept, len(tuned.losses), tuned.ended) == (90, True, 3, "length")
    assert divergence(outputs_of(model, [held]), outputs_of(original, [held])) == tuned.after


@pytest.mark.parametrize("train", ["adapters", "shared", "all"])
def test_only_what_may_change_changes(train: str) -> None:
    model, original = pair()
    before, teacher = state(model), state(original)
    tuned = finetune(model, original, images(), train=train, epochs=1, batch_size=32)
    changes = changed(model, before)
    assert ("0.parametrizations.weight.0.shared.V" in changes) == (train != "adapters")
    assert ("7.weight" in changes) == (train == "all")
    assert {"0.parametrizations.weight.0.adapter.U", "0.bias", "1.weight"} <= changes
    assert not {"1.running_mean", "1.running_var", "1.num_batches_tracked"} & changes
    assert not changed(original, teacher)
    assert tuned.trained == sum(before[key].numel() for key in changes)
    assert tuned.params == sum(parameter.numel() for parameter in model.parameters())


def test_a_gate_learns_although_it_starts_at_zero() -> None:
    model, original = pair("se")
    before = state(model)
    finetune(model, original, images(), epochs=2, batch_size=32)
    assert {"0.gate.fc2.weight", "0.gate.fc1.weight"} <= changed(model, before)


def test_a_seed_decides_the_result_to_the_bit() -> None:
    results = []
    for seed in (0, 0, 1):
        model, original = pair()
        torch.rand(3)  # the global generator has no part in it
        finetune(model, original, images(), epochs=2, batch_size=32, seed=seed)
        results.append(state(model)["0.parametrizations.weight.0.adapter.U"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_global_generator_is_left_alone() -> None:
    model, original = pair()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    finetune(model, original, images(), epochs=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_fine_tune_that_increases_the_divergence_is_undone() -> None:
    model, original = pair()
    before = state(model)
    tuned = finetune(model, original, images(), heldout=images(64, seed=1), epochs=2, batch_size=32, lr=3.0)
    assert tuned.kept is False
    assert tuned.after == tuned.before
    assert not changed(model, before)


def test_the_best_state_on_the_held_out_images_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = pair()
    held, states = images(64, seed=1), list[dict[str, Tensor]]()
    true = Schedule.set

    def too_high_from_step_4(schedule: Schedule, done: float, factor: float) -> None:
        true(schedule, 0.2, factor if done < 0.5 else 100 * factor)

    monkeypatch.setattr(Schedule, "set", too_high_from_step_4)
    options = {"heldout": held, "steps": 6, "batch_size": 32, "lr": 1e-2, "save_every": 1}
    tuned = finetune(model, original, images(), progress=lambda *_: states.append(state(model)), **options)
    kls = []
    for values in states:
        net, _ = pair()
        net.load_state_dict(values)
        kls.append(divergence(outputs_of(net, [held]), outputs_of(original, [held])).kl)
    assert kls.index(min(kls)) == 2
    assert tuned.kept
    assert same(state(model), states[2])


def test_a_plateau_ends_the_fine_tune() -> None:
    model, original = pair()
    options = {"heldout": images(64, seed=1), "epochs": 50, "batch_size": 32, "lr": 30.0, "save_every": 2}
    tuned = finetune(model, original, images(), patience=2, **options)
    assert (tuned.ended, tuned.steps, tuned.kept) == ("plateau", 4, False)


def test_the_third_loss_that_is_not_finite_ends_the_fine_tune() -> None:
    model, original = pair()
    before = state(model)
    poison = images()
    poison[70] = math.inf
    with pytest.raises(GuardError, match=r"KD802: the loss or its gradient was not finite 3 times") as caught:
        finetune(model, original, poison, epochs=3, batch_size=16)
    assert caught.value.exit_code == 3
    assert not changed(model, before)


def test_after_a_loss_that_is_not_finite_the_rate_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = pair()
    from kdna_convert.tasks import classify

    calls = iter(range(1000))
    true = classify.distillation

    def once(*arguments: Any) -> Tensor:
        return true(*arguments) * (math.nan if next(calls) == 5 else 1.0)

    monkeypatch.setattr(classify, "distillation", once)
    rates: list[tuple[float, float]] = []
    set_rate = Schedule.set

    def recorded(schedule: Schedule, done: float, factor: float) -> None:
        set_rate(schedule, done, factor)
        rates.append((done, schedule.optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(Schedule, "set", recorded)
    tuned = finetune(model, original, images(), epochs=4, batch_size=32, heldout=images(64, seed=1), save_every=3)
    assert (tuned.falls, tuned.steps, tuned.kept) == (1, 12, True)
    steps = [int(done * 12) for done, _ in rates]
    assert steps == [0, 1, 2, 3, 4, 3, 4, *range(5, 12)]  # back to the state after step 3
    assert [rate for _, rate in rates[5:7]] == pytest.approx([rate / 2 for _, rate in rates[3:5]])
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_fp16_comes_as_close_to_the_original_as_fp32() -> None:
    kls = []
    for precision in ("fp32", "fp16"):
        model, original = pair()
        tuned = finetune(
            model, original, images(), epochs=8, batch_size=32, heldout=images(64, seed=1), precision=precision
        )
        assert tuned.before is not None
        assert tuned.after is not None
        assert tuned.falls == 0
        kls.append(tuned.after.kl)
    assert kls[1] < 0.7 * tuned.before.kl
    assert kls[1] == pytest.approx(kls[0], rel=0.05)


def test_a_gradient_that_overflows_in_fp16_is_no_step_and_halves_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    true = Engine.step

    def watched(engine: Engine, optimizer: Any) -> None:
        scales.append(engine.scale[0])
        true(engine, optimizer)

    monkeypatch.setattr(Engine, "step", watched)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    model, original = pair()
    before = state(model)
    tuned = finetune(model, original, images(), steps=4, batch_size=32, precision="fp16")
    assert scales == [2.0**40, 2.0**39, 2.0**38, 2.0**37]
    assert (tuned.falls, tuned.steps, changed(model, before)) == (0, 4, set())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_modes_flags_gradients_and_forwards_are_restored(precision: str) -> None:
    model, original = pair()
    model.train()
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    finetune(model, original, images(), epochs=1, precision=precision)
    assert all(module.training for module in model.modules())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in original.parameters())
    assert not any("forward" in module.__dict__ for net in (model, original) for module in net.modules())


def test_labels_are_ignored_by_default() -> None:
    model, original = pair()
    tuned = finetune(model, original, [(images(), torch.full((96,), 10**6))], epochs=1)
    assert tuned.before is None
    assert tuned.kept


def test_a_label_weight_moves_the_answers_to_the_labels() -> None:
    labels = torch.zeros(96, dtype=torch.long)
    shares = []
    for weight in (0.0, 100.0):
        model, original = pair()
        options = {"epochs": 10, "batch_size": 32, "lr": 0.1, "shared_lr": 0.1, "train": "all", "label_weight": weight}
        finetune(model, original, [(images(), labels)], **options)
        shares.append(float((outputs_of(model, [images()])[0].argmax(1) == 0).float().mean()))
    assert shares[1] > shares[0]
    with pytest.raises(DataError, match="KD403"):
        finetune(*pair(), images(), label_weight=1.0)


def test_a_feature_weight_brings_the_features_closer() -> None:
    from kdna_convert.stages.finetune.loss import captured

    errors = []
    for weight in (0.0, 30.0):
        model, original = pair()
        finetune(model, original, images(), epochs=10, batch_size=32, lr=1e-2, feature_weight=weight)
        with captured(model, ["3"]) as outputs, captured(original, ["3"]) as targets:
            outputs_of(model, [images()])
            outputs_of(original, [images()])
        errors.append(float((outputs["3"] - targets["3"]).square().sum()))
    assert errors[1] < errors[0]


def test_accumulated_parts_equal_one_batch() -> None:
    results = []
    for accumulate in (1, 4):
        model, original = pair()
        finetune(model, original, images(), steps=1, batch_size=32, accumulate=accumulate, opt="sgd")
        results.append(state(model)["0.parametrizations.weight.0.adapter.U"])
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-7)
    assert not torch.equal(results[0], pair()[0].state_dict()["0.parametrizations.weight.0.adapter.U"])


def test_a_net_without_logits_is_refused() -> None:
    model, _ = pair()
    with pytest.raises(ModelError, match="KD308"):
        finetune(model, nn.Flatten(0), images(), epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "steps": 5}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"seconds": -1.0}, "seconds"),
        ({"label_weight": -0.1}, "label_weight"),
        ({"batch_size": 10, "accumulate": 3}, "batch_size"),
        ({"opt": "no-such-optimizer"}, "opt"),
    ],
    ids=str,
)
def test_settings_that_are_not_possible_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=f"KD208: .*{message}"):
        finetune(*pair(), images(), **options)


def test_the_fitted_rate_removes_the_intended_share_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "LARGEST", 1.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5, bias=False))
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    weight = model[1].weight
    nn.init.eye_(weight)
    start = weight.detach().clone()
    loss = model(x).square().mean()
    (gradient,) = torch.autograd.grad(model(x).square().mean(), [weight])
    size = float(weight.detach().square().mean().sqrt())
    with torch.no_grad():
        weight.sub_(1e-3 * fitting_rate(model.parameters(), loss) * size * gradient.sign())
        taken = (loss.detach() - model(x).square().mean()) / 1e-3
        weight.copy_(start)
    assert float(taken / loss.detach()) == pytest.approx(CARE, rel=0.01)


def test_a_fine_tune_ends_at_the_first_step_after_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = pair()
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    tuned = finetune(model, original, images(), seconds=0.5, batch_size=32, progress=lambda *_: clock.advance(0.125))
    assert (tuned.steps, tuned.seconds, tuned.ended) == (5, 0.5, "length")


def test_a_net_with_an_output_per_position_learns_at_each_position() -> None:
    model, original = pair()
    for net in (model, original):
        net[5], net[6], net[7] = nn.Flatten(2), nn.Identity(), nn.Identity()  # (images, classes, positions)
    options: dict[str, Any] = {"heldout": images(64, seed=1), "epochs": 5, "batch_size": 32, "lr": 1e-2}
    tuned = finetune(model, original, images(), **options, task=SEQUENCE)
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.after.kl < 0.9 * tuned.before.kl
    labeled = [(images(), torch.zeros(96, dtype=torch.long))]
    with pytest.raises(ModelError, match=r"KD308: classify needs logits \(images, classes\)"):
        finetune(model, original, labeled, epochs=1, label_weight=1.0)


def test_rows_of_labels_train_a_net_with_an_output_per_position() -> None:
    rows = torch.tensor([[1, 2, -1], [3, -1, -1], [2, 4, 1]]).repeat(32, 1)
    errors = []
    for weight in (0.0, 3.0):
        model, original = pair()
        for net in (model, original):
            net[5], net[6], net[7] = nn.Flatten(2), nn.Identity(), nn.Identity()  # (images, classes, positions)
        data = [(images(), rows)]
        finetune(
            model, original, data, epochs=20, batch_size=32, lr=2e-2, train="all", label_weight=weight, task=SEQUENCE
        )
        with torch.no_grad():
            errors.append(float(SEQUENCE.label_loss((model(images()),), rows)))
    assert errors[1] < 0.85 * errors[0]


def test_the_label_error_is_small_if_the_outputs_spell_the_row() -> None:
    spelt = F.one_hot(torch.tensor([[1, 1, 0, 2, 2, 0]]), 4).mT.float() * 9  # (1, classes, positions)
    wrong = [[1, -1], [2, 1], [1, 1], [3, -1]]
    right, *others = (float(SEQUENCE.label_loss((spelt,), torch.tensor([row]))) for row in ([1, 2], *wrong))
    assert right < 0.1 < min(others)
    assert float(SEQUENCE.label_loss((spelt[..., :1],), torch.tensor([[1, 2]]))) == 0  # no room for it


def test_rows_of_labels_of_different_lengths_are_refused() -> None:
    class Uneven(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return images(1, seed=index)[0], torch.ones(1 + index % 2, dtype=torch.long)

    batched = [(images(4), torch.ones(4, length, dtype=torch.long)) for length in (1, 2)]
    for data in (Uneven(), batched):
        with pytest.raises(DataError, match=r"KD403.*pad"):
            finetune(*pair(), data, epochs=1, batch_size=4, label_weight=1.0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_scaled_kl_and_vanishes_at_the_teacher(temperature: float) -> None:
    z, z0 = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_p, log_p0 = F.log_softmax(z / temperature, 1), F.log_softmax(z0 / temperature, 1)
    expected = F.kl_div(log_p, log_p0, reduction="batchmean", log_target=True) * temperature**2
    assert torch.allclose(distillation(z, z0, temperature), expected)
    z0.requires_grad_()
    loss = distillation(z0, z0.detach(), temperature)
    loss.backward()
    assert z0.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert z0.grad.abs().max() < 1e-15


def test_progress_counts_steps_and_shows_loss_and_agreement() -> None:
    model, original = pair()
    calls: list[tuple[str, int, int]] = []
    finetune(model, original, images(), epochs=1, batch_size=48, progress=lambda *step: calls.append(step))
    assert [step[1:] for step in calls] == [(1, 2), (2, 2)]
    assert all(word in calls[0][0] for word in ("loss 0.", "agreement ", "images/s"))


def test_the_log_has_one_line_per_step(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    model, original = pair()
    finetune(model, original, images(), epochs=2, batch_size=48, files=RunFiles(log=log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "agreement", "rate", "seconds", "images_per_second"} <= set(lines[0])


def test_the_report_has_each_validation_with_its_step_time_rate_and_agreement() -> None:
    model, original = pair()
    held = images(64, seed=1)
    tuned = finetune(model, original, images(), heldout=held, steps=40, batch_size=32, lr=1e-2, save_every=20)
    assert [look.step for look in tuned.looks] == [20, 40]
    assert [look.loss for look in tuned.looks] == [*tuned.losses]
    assert all(0 <= look.agreement <= 1 and look.lr > 0 and look.heldout is not None for look in tuned.looks)
    assert tuned.looks[0].seconds < tuned.looks[1].seconds == tuned.seconds
