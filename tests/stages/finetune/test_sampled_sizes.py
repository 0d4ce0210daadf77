"""Sampled sizes: their distribution, kernels of few directions, and the effect on a cut net."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from support.command import FEW_IMAGES, NET, kdna
from support.fine_tuning import MEMBERS, finetune, killed_and_resumed, pair, run, same, state
from support.fine_tuning import images as noise
from torch import Tensor, nn

from kdna_convert.core.errors import RecipeError
from kdna_convert.network.derive import derived_layers
from kdna_convert.network.folder import open_folder
from kdna_convert.stages.evaluate.accuracy import divergence
from kdna_convert.stages.evaluate.outputs import outputs_of
from kdna_convert.stages.finetune.rate import Schedule
from kdna_convert.stages.finetune.sampled_sizes import LEAST, drawn_share, sized


def test_half_of_the_steps_are_at_full_size_and_the_rest_uniform() -> None:
    shares = [drawn_share(3, step) for step in range(4000)]
    small = [share for share in shares if share < 1]
    assert len(small) / len(shares) == pytest.approx(0.5, abs=0.03)
    quarters = Counter(int(4 * (share - LEAST) / (1 - LEAST)) for share in small)
    assert set(quarters) == {0, 1, 2, 3}
    assert all(count / len(small) == pytest.approx(0.25, abs=0.04) for count in quarters.values())


def test_a_draw_depends_on_the_seed_and_the_step() -> None:
    assert [drawn_share(1, step) for step in range(20)] == [drawn_share(1, step) for step in range(20)]
    assert [drawn_share(1, step) for step in range(20)] != [drawn_share(2, step) for step in range(20)]
    assert [drawn_share(0, step) for step in range(1, 21)] != [drawn_share(1, step) for step in range(20)]


@pytest.mark.parametrize(("share", "size"), [(0.25, 1), (0.26, 2), (0.75, 3), (1.0, 4)])
def test_a_sized_kernel_has_its_leading_directions_and_is_restored(share: float, size: int) -> None:
    model, _ = pair()
    weight = derived_layers(model)["3"]
    whole = weight().detach().clone()
    with sized(model, MEMBERS, share):
        cut = weight.adapter["U"][:, :size] @ weight.shared["V"][:size]
        assert torch.allclose(model[3].weight, cut.view(whole.shape))
        model[3].weight.sum().backward()
    used = weight.adapter["U"].grad.abs().sum(0) > 0
    assert used.tolist() == [place < size for place in range(4)]
    assert torch.equal(weight(), whole)
    assert "forward" not in weight.__dict__


def test_a_sized_net_is_restored_after_an_error() -> None:
    model, _ = pair()
    whole = derived_layers(model)["0"]().detach().clone()
    with pytest.raises(ValueError, match="stop"), sized(model, MEMBERS, 0.5):
        raise ValueError("stop")
    assert torch.equal(derived_layers(model)["0"](), whole)


def test_only_the_nested_layers_are_cut() -> None:
    model, _ = pair()
    with sized(model, ("0",), 0.5):
        assert torch.linalg.matrix_rank(model[0].weight.flatten(1)) == 2
        assert torch.linalg.matrix_rank(model[3].weight.flatten(1)) == 4


def cut_kl(model: nn.Module, original: nn.Module, share: float) -> float:
    held = [noise(128, seed=1)]
    with sized(model, MEMBERS, share):
        return divergence(outputs_of(model, held), outputs_of(original, held)).kl


def test_training_at_sampled_sizes_lowers_the_error_of_a_cut_net() -> None:
    errors = []
    for sampled in (False, True):
        model, original = pair()
        options = {"epochs": 40, "batch_size": 32, "lr": 1e-2, "train": "shared", "sampled": sampled}
        finetune(model, original, noise(), nested=MEMBERS, **options)
        errors.append((cut_kl(model, original, 0.5), cut_kl(model, original, 1.0)))
    assert errors[1][0] < 0.7 * errors[0][0]
    assert errors[1][1] < cut_kl(*pair(), 1.0)


def test_the_kept_state_is_the_best_mean_of_full_and_middle_size(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Schedule.set
    monkeypatch.setattr(Schedule, "set", lambda schedule, done, factor: true(schedule, 0.2, factor))  # no decay
    model, original = pair()
    states: list[dict[str, Tensor]] = []
    options = {"batch_size": 32, "lr": 0.05, "train": "shared", "sampled": True, "nested": MEMBERS, "steps": 12}
    options |= {"heldout": noise(128, seed=1), "save_every": 1}
    finetune(model, original, noise(), progress=lambda *_: states.append(state(model)), **options)
    full, mean = [], []
    for values in states:
        net, _ = pair()
        net.load_state_dict(values)
        full.append(cut_kl(net, original, 1.0))
        mean.append((full[-1] + cut_kl(net, original, 0.625)) / 2)
    best = mean.index(min(mean))
    assert best not in (full.index(min(full)), len(states) - 1)
    assert same(state(model), states[best])


def test_the_reported_divergence_is_that_of_the_full_size() -> None:
    model, original = pair()
    held = noise(64, seed=1)
    tuned = finetune(model, original, noise(), heldout=held, nested=MEMBERS, sampled=True, steps=6, save_every=2)
    assert tuned.after == divergence(outputs_of(model, [held]), outputs_of(original, [held]))


@pytest.mark.parametrize("until", [3, 8])
def test_a_killed_run_resumes_with_the_sizes_of_the_straight_one(until: int, tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, until, nested=MEMBERS, sampled=True)
    assert not same(run(None, nested=MEMBERS), run(None, nested=MEMBERS, sampled=True))


def test_sampled_sizes_need_a_nested_net(images: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"KD208: sampled.*nested: true"):
        finetune(*pair(), noise(), sampled=True)
    done = kdna("finetune", folder, "--data", images, "--steps", "1", "--sampled", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "KD208: sampled" in done.stderr


def test_a_nested_folder_is_trained_and_still_cut(images: Path, tmp_path: Path) -> None:
    few = (*FEW_IMAGES, "--set", "fit.sweeps=3")
    command = ("convert", NET, "--data", images, "--recipe", "shared-basis", *few, "--set", "nested=true")
    done = kdna(*command, "--target-params", "0.6", "-o", tmp_path / "in")
    assert done.exit_code == 0, done.stderr
    steps = ("--batch-size", "8", "--steps", "6", "--train", "shared", "--sampled")
    done = kdna("finetune", tmp_path / "in", "--data", images, *steps, "-o", tmp_path / "tuned")
    assert done.exit_code == 0, done.stderr
    assert kdna("verify", tmp_path / "tuned").exit_code == 0
    assert open_folder(tmp_path / "tuned").plan.nested == open_folder(tmp_path / "in").plan.nested
    done = kdna("shrink", tmp_path / "tuned", "--target-params", "0.45", "-o", tmp_path / "cut")
    assert done.exit_code == 0, done.stderr
