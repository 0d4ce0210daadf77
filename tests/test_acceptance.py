"""What the product must reach on real nets and real images; skipped, with a message, where these are not.

KDNA_TEST_DATA names their folder, otherwise ../shared/data beside the checkout. `pytest -m slow` runs the long ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from support.command import kdna

import kdna_convert
from kdna_convert.core.specs import Plan, from_json
from kdna_convert.network.folder import verify

pytestmark = pytest.mark.acceptance
EXAMPLES = Path(__file__).parent.parent / "examples" / "cifar_resnet.py"


@pytest.fixture(scope="module")
def given(shared_data: Path) -> Callable[[str], dict[str, Any]]:
    """given("resnet20"): the net and its trained weights, as keywords."""

    def net(name: str) -> dict[str, Any]:
        checkpoint = shared_data / "checkpoints" / f"cifar10_{name}.safetensors"
        return {"model": f"{EXAMPLES}:{name}", "checkpoint": str(checkpoint)}

    return net


def test_the_example_net_with_the_shared_weights_is_as_good_as_it_was_trained(
    given: Callable[[str], dict[str, Any]], shared_data: Path
) -> None:
    net = given("resnet20")
    evaluation = kdna_convert.evaluate(net.pop("model"), **net, data=shared_data / "cifar10" / "test", limit=1000)
    assert evaluation.images == 1000
    assert evaluation.top1 is not None
    assert evaluation.top1 > 0.90


def test_half_of_resnet20_agrees_with_the_whole_and_has_the_planned_size(
    given: Callable[[str], dict[str, Any]], shared_data: Path, tmp_path: Path
) -> None:
    net, out = given("resnet20"), tmp_path / "half"
    done = kdna(
        "convert", net["model"], "--checkpoint", net["checkpoint"], "--data", shared_data / "cifar10" / "train",
        "--recipe", "shared-cp", "--set", "calibration.images=300", "--set", "calibration.heldout=200",
        "--target-params", 0.5, "--output", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    plan = from_json(Plan, (out / "plan.json").read_bytes())
    file = out / "model.safetensors"
    assert plan.planned.params <= plan.original.params / 2
    assert file.stat().st_size == plan.planned.bytes
    with safe_open(file, "pt") as tensors:
        numbers = sum(
            tensors.get_tensor(name).numel()
            for name in tensors.keys()  # noqa: SIM118
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        )
    assert numbers == plan.planned.params
    assert all(check.ok for check in verify(out))
    model = kdna_convert.load(out)
    assert sum(parameter.numel() for parameter in model.parameters()) == plan.planned.params
    evaluation = kdna_convert.evaluate(out, data=shared_data / "cifar10" / "test", limit=1000)
    assert evaluation.agreement is not None
    assert evaluation.agreement > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "share", "least"),
    [
        ("shared-cp", 0.50, 0.924),
        ("shared-cp", 0.35, 0.902),
        ("shared-cp", 0.25, 0.860),
        ("shared-basis", 0.50, 0.913),
        ("shared-basis", 0.35, 0.875),
        ("shared-basis", 0.25, 0.780),
    ],
)
def test_resnet56_keeps_its_accuracy_without_training(
    recipe: str,
    share: float,
    least: float,
    given: Callable[[str], dict[str, Any]],
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On all 5,000 test images, from at most 2,000 unlabeled training images; the original reaches 93.30 %."""
    cache = tmp_path_factory.getbasetemp()
    conversion = kdna_convert.convert(
        **given("resnet56"),
        recipe=recipe,
        data=shared_data / "cifar10" / "train",
        target_params=share,
        moments=cache / f"{recipe}.moments.safetensors",
        database=cache / f"{recipe}.database.json",
    )
    assert conversion.report.calibration.images <= 2000
    assert conversion.plan.planned.params <= share * conversion.plan.original.params
    evaluation = kdna_convert.evaluate(conversion, data=shared_data / "cifar10" / "test")
    assert evaluation.images == 5000
    assert evaluation.top1 is not None
    assert evaluation.top1 >= least
