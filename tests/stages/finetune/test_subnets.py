"""Sub-networks in a fine-tune: where they end, how they start, their effect, and that they leave no trace."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command import kdna
from support.fine_tuning import SIX_STEPS, finetune, killed_and_resumed, pair, run, same, state, with_basis
from support.fine_tuning import images as plain_images
from support.processes import torchrun
from torch import Tensor, nn

from kdna_convert.core.errors import ModelError, RecipeError
from kdna_convert.inputs.data import Views, as_images
from kdna_convert.network.blocks import find_blocks
from kdna_convert.stages.finetune.folded_norms import plain_convolutions
from kdna_convert.stages.finetune.loss import captured
from kdna_convert.stages.finetune.subnets import classifier_of, fit_subnets, linear_fit, pooled, subnet_ends


def staged(width: int = 4) -> nn.Module:
    """Two stages, of 8x8 and of 4x4 places, and a Linear classifier."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 5),
    ).eval()


def two() -> tuple[nn.Module, nn.Module]:
    """A staged original, and its convolutions of one shape converted to a shared basis."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = staged()
    return with_basis(original, ("2", "4"), rank=3), original


def noise(count: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def ends_of(original: nn.Module) -> tuple[str, ...]:
    return subnet_ends(original, find_blocks(original, plain_convolutions(original), noise(2)), noise(2))


def subnets_of(original: nn.Module) -> nn.Module:
    views = Views(as_images(noise()), None, 0, False)
    return fit_subnets(original, ends_of(original), noise(2), views, 32, 0)


def early_kl(model: nn.Module, original: nn.Module) -> float:
    """Of the first stage's answers, by maps fitted on the original, from the original's."""
    subnets = subnets_of(original)
    with torch.no_grad(), captured(model, ends_of(original)) as outputs:
        model(noise())
        answer = subnets(*outputs.values())[0].log_softmax(1)
        target = original(noise()).log_softmax(1)
    return float((target.exp() * (target - answer)).sum(1).mean())


def test_subnets_end_at_every_stage_but_the_last() -> None:
    (end,) = ends_of(two()[1])
    assert int(end) in (2, 3)


def test_a_net_of_one_stage_and_one_without_a_linear_classifier_are_refused() -> None:
    with pytest.raises(ModelError, match="KD310: subnets"):
        finetune(*pair(), plain_images(), subnets=0.1)
    model, original = two()
    model.append(nn.Softplus())
    original.append(nn.Softplus())
    with pytest.raises(ModelError, match=r"KD310.*Linear"):
        finetune(model, original, noise(), subnets=0.1)
    with pytest.raises(RecipeError, match="KD208: subnets"):
        finetune(*two(), noise(), subnets=-1.0)


def test_the_classifier_is_the_last_linear_layer() -> None:
    original = two()[1]
    assert classifier_of(original, noise(2)) is original[-1]


def test_a_map_is_the_least_squares_solution_with_a_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    features, error = torch.randn(200, 4, generator=generator).double() + 3, torch.randn(200, 2, generator=generator)
    targets = features[:, :2] * 2 - 1 + error.double()
    weight, bias = linear_fit(features, targets)
    best = torch.linalg.lstsq(torch.cat([features, torch.ones(200, 1)], 1), targets).solution
    assert torch.allclose(weight.double(), best[:4].T, atol=1e-3)
    assert torch.allclose(bias.double(), best[4], atol=1e-2)


def test_a_fitted_subnet_is_closer_than_the_mean_answer() -> None:
    original = two()[1]
    target = original(noise()).detach().softmax(1)
    kl_of_mean = (target * (target.log() - target.mean(0).log())).sum(1).mean()
    assert early_kl(original, original) < float(kl_of_mean)


def test_only_the_maps_of_subnets_train() -> None:
    subnets = subnets_of(two()[1])
    assert {name for name, _ in subnets.named_parameters()} == {"weights_dc.0", "biases_d.0"}


def test_an_output_is_averaged_over_its_positions() -> None:
    output = torch.randn(2, 3, 4, 5)
    assert torch.allclose(pooled(output), output.mean((2, 3)))


def test_a_subnet_weight_brings_early_stages_closer() -> None:
    losses = []
    for weight in (0.0, 30.0):
        model, original = two()
        with torch.no_grad():
            model[2].bias += 0.5
        finetune(model, original, noise(), epochs=10, batch_size=32, lr=1e-2, train="shared", subnets=weight)
        losses.append(early_kl(model, original))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_subnets_leave_no_trace_in_the_net(precision: str) -> None:
    model, original = two()
    before, names = state(original), set(model.state_dict())
    tuned = finetune(model, original, noise(), epochs=1, batch_size=32, subnets=1.0, precision=precision)
    assert set(model.state_dict()) == names
    assert not any(module._forward_hooks for net in (model, original) for module in net.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in original.state_dict().items())
    assert all(parameter.grad is None for net in (model, original) for parameter in net.parameters())
    assert tuned.params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_killed_run_resumes_with_their_maps_to_the_bit(ema: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"nets": two, "noise": noise, "ema": ema}
    left = killed_and_resumed(tmp_path, 7, subnets=1.0, **options)
    assert {"subnets.weights_dc.0", "subnets.biases_d.0"} < set(left.now)
    assert not same(run(None, **options), run(None, subnets=1.0, **options))


@pytest.fixture(scope="module")
def converted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged net, converted by the command line."""
    out = tmp_path_factory.mktemp("staged") / "out"
    options = ("--set", "calibration.images=30", "--set", "calibration.heldout=0", "--set", "fit.sweeps=3")
    size = ("--mean", "0.5", "--std", "0.5", "--input-size", "8")
    command = ("convert", f"{Path(__file__)}:staged", "--data", images, *size, *options)
    done = kdna(*command, "--recipe", "shared-basis", "--target-params", "0.9", "-o", out)
    assert done.exit_code == 0, done.output
    return out


def test_subnets_add_no_tensor_to_the_folder(images: Path, converted: Path, tmp_path: Path) -> None:
    tensors = []
    for weight in ("0", "0.5"):
        out = tmp_path / weight
        steps = ("--batch-size", "8", "--steps", "2", "--ema", "0.9", "--subnets", weight)
        done = kdna("finetune", converted, "--data", images, *steps, "-o", out)
        assert done.exit_code == 0, done.output
        assert kdna("verify", out).exit_code == 0
        assert json.loads((out / "report.json").read_text())["finetune"]["settings"]["subnets"] == float(weight)
        tensors.append(load_file(out / "model.safetensors"))
    assert set(tensors[0]) == set(tensors[1])


@pytest.mark.slow
def test_two_processes_train_subnets_and_the_average_like_one(images: Path, converted: Path, tmp_path: Path) -> None:
    command = ("finetune", converted, "--data", images, *SIX_STEPS, "--train", "shared", "--lr", "0.01")
    command = (*command, "--subnets", "5", "--ema", "0.9", "--orthogonality", "0.1")
    done = torchrun("kdna_convert", *command, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert kdna(*command, "-o", tmp_path / "one").exit_code == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(two[name], tensor, atol=1e-5) for name, tensor in one.items())
