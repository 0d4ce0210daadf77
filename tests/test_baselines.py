"""A benchmark measures a net only if it is fed as it was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support import documents
from support.benchmarks import benchmark

from kdna_convert.inputs.digits import WEIGHTS, digits

baselines = benchmark("baselines")
NET = "kdna_convert.inputs.digits:digits_net"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DATA folder of the bundled net and 100 of its test images, which it all recognizes."""
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(WEIGHTS, tmp_path / "checkpoints" / "digits.safetensors")
    inputs, labels = digits("test")
    for number, (pixels, label) in enumerate(zip(inputs[:100], labels[:100], strict=True)):
        place = tmp_path / "images" / str(int(label)) / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        grey = (pixels[0] * 0.376 + 0.305).mul(255).round().clamp(0, 255).byte()
        Image.fromarray(grey.numpy()).save(place)
    monkeypatch.setitem(baselines.BASELINES, "digits", baselines.Baseline(NET, "images", 100.0))
    return tmp_path


def test_a_net_that_is_fed_as_it_was_trained_passes(data: Path) -> None:
    baselines.require_baseline(NET, data / "checkpoints" / "digits.safetensors")


def test_a_net_that_is_fed_otherwise_ends_the_benchmark(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(baselines.RIGHT_INPUTS, "digits", {"mean": (0.305,), "interpolation": "bilinear"})
    wrong = {"mean": (5.0,), "std": (0.1,)}
    with pytest.raises(SystemExit, match=r"instead of 100\.00: .* --mean 0\.305 --interpolation bilinear"):
        baselines.require_baseline(NET, data / "checkpoints" / "digits.safetensors", wrong)


def test_the_command_exits_with_1_if_a_checkpoint_scores_otherwise(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baselines.main([str(data), "digits", "imagenet_resnet18"]) == 0
    shown = capsys.readouterr().out
    assert "100.00  ok" in shown
    assert "imagenet_resnet18          skipped" in shown
    monkeypatch.setitem(baselines.BASELINES, "digits", baselines.Baseline(NET, "images", 90.0))
    assert baselines.main([str(data), "digits"]) == 1
    assert "100.00  digits scores 100.00 instead of 90.00" in capsys.readouterr().out


def test_random_weights_and_unknown_checkpoints_have_no_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    baselines.require_baseline(NET, None)
    baselines.require_baseline(NET, "elsewhere/checkpoints/mine.pth")
    assert "mine has no baseline" in capsys.readouterr().err


@pytest.mark.parametrize("name", baselines.RIGHT_INPUTS)
def test_every_command_of_the_documentation_feeds_the_checkpoint_as_it_was_trained(name: str) -> None:
    for path, text in documents.pages().items():
        for command in text.replace("\\\n", " ").splitlines():
            if f"checkpoints/{name}.safetensors" in command:
                assert baselines.BASELINES[name].model in command, path
                for flag, value in baselines.RIGHT_INPUTS[name].items():
                    first = value if isinstance(value, str) else str(value[0])
                    assert f"--{flag} {first}" in " ".join(command.split()), path
