"""Fine-tuning: towards the original, only what may change, and back when it goes wrong."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdna_convert.derive import derive
from kdna_convert.errors import ModelError, NumericsError
from kdna_convert.evaluate import divergence, logits
from kdna_convert.finetune import distillation, finetune
from kdna_convert.specs import Family

MEMBERS = ("0", "3")


def pair(routing: str | None = None) -> tuple[nn.Module, nn.Module]:
    """An original, and its two convolutions converted to a shared basis of a third of their rank."""
    original = nn.Sequential(
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(max(1, parameter[0].numel())))
    model = copy.deepcopy(original)
    rows = torch.cat([model.get_submodule(name).weight.detach().flatten(1) for name in MEMBERS])
    basis = torch.linalg.svd(rows, full_matrices=False).Vh[:4]
    adapters = [{"U": model.get_submodule(name).weight.detach().flatten(1) @ basis.T} for name in MEMBERS]
    return derive(model, Family("basis", MEMBERS, {"rank": 4}, routing), {"V": basis}, adapters), original


def images(count: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, 6, 6, generator=torch.Generator().manual_seed(seed))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def test_the_net_comes_closer_to_the_original_on_images_it_was_not_trained_on() -> None:
    model, original = pair()
    tuned = finetune(model, original, images(), heldout=images(64, seed=1), epochs=30, batch_size=32, lr=1e-2)
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.after.kl < 0.7 * tuned.before.kl
    assert tuned.losses[-1] < tuned.losses[0]
    assert (tuned.steps, tuned.kept, len(tuned.losses)) == (90, True, 30)
    measured = divergence(logits(model, [images(64, seed=1)]), logits(original, [images(64, seed=1)]))
    assert measured == tuned.after


@pytest.mark.parametrize("train", ["adapters", "shared", "all"])
def test_only_what_may_change_changes(train: str) -> None:
    model, original = pair()
    before, teacher = state(model), state(original)
    tuned = finetune(model, original, images(), train=train, epochs=1, batch_size=32)  # type: ignore[arg-type]
    moved = changed(model, before)
    assert ("0.parametrizations.weight.0.shared.V" in moved) == (train != "adapters")
    assert ("7.weight" in moved) == (train == "all")
    assert {"0.parametrizations.weight.0.adapter.U", "0.bias", "1.weight"} <= moved
    assert not {"1.running_mean", "1.running_var", "1.num_batches_tracked"} & moved
    assert not changed(original, teacher)
    assert tuned.trained == sum(before[key].numel() for key in moved)
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


def test_a_fine_tune_that_leads_away_is_undone() -> None:
    model, original = pair()
    before = state(model)
    tuned = finetune(model, original, images(), heldout=images(64, seed=1), epochs=2, batch_size=32, lr=3.0)
    assert tuned.kept is False
    assert tuned.after is not None
    assert tuned.before is not None
    assert tuned.after.kl > tuned.before.kl
    assert not changed(model, before)


def test_a_loss_that_is_not_finite_puts_every_parameter_back() -> None:
    model, original = pair()
    before = state(model)
    poison = images()
    poison[70] = math.inf
    with pytest.raises(NumericsError, match=r"KD703: the loss is nan at step \d+; try a lower lr"):
        finetune(model, original, poison, epochs=3, batch_size=16)
    assert not changed(model, before)


def test_modes_and_flags_and_gradients_are_put_back() -> None:
    model, original = pair()
    model.train()
    for parameter in original.parameters():
        parameter.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    finetune(model, original, images(), epochs=1)
    assert all(module.training for module in model.modules())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in original.parameters())


def test_labels_are_not_read() -> None:
    model, original = pair()
    tuned = finetune(model, original, [(images(), torch.full((96,), 10**6))], epochs=1)
    assert tuned.before is None
    assert tuned.kept


def test_a_net_without_logits_is_refused() -> None:
    model, _ = pair()
    with pytest.raises(ModelError, match="KD308"):
        finetune(model, nn.Flatten(0), images(), epochs=1)


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


def test_progress_counts_steps() -> None:
    model, original = pair()
    seen: list[tuple[str, int, int]] = []
    finetune(model, original, images(), epochs=1, batch_size=48, progress=lambda *step: seen.append(step))
    assert seen == [("fine-tune", 0, 2), ("fine-tune", 1, 2), ("fine-tune", 2, 2)]
