"""The bundled digits and net: fixed splits, size, accuracy, and loading like any other model."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from support.places import ROOT

from kdna_convert.core.tensorfile import load_tensors
from kdna_convert.inputs.digits import WEIGHTS, digits, digits_net
from kdna_convert.inputs.models import load_model
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.evaluate.accuracy import evaluate

MODEL = "kdna_convert.inputs.digits:digits_net"
TRAINER = ROOT / "examples" / "train_digits.py"


def test_the_splits_are_fixed_and_disjoint() -> None:
    train, test = digits("train"), digits("test")
    assert (train[0].shape, test[0].shape) == ((1257, 1, 8, 8), (540, 1, 8, 8))
    assert all(torch.equal(one, other) for one, other in zip(digits("train"), train, strict=True))
    assert test[1][:12].tolist() == [1, 4, 5, 6, 9, 1, 2, 2, 2, 0, 7, 5]
    assert min(torch.bincount(test[1])) >= 52


def test_inputs_are_normalized() -> None:
    images, _ = digits("train")
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01


def test_the_bundled_weights_are_under_a_megabyte_and_over_98_percent() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    loaded = load_model(MODEL, checkpoint=str(WEIGHTS))
    assert (loaded.data.input_size, loaded.data.mean) == ((1, 8, 8), (0.305,))
    images, labels = digits("test")
    evaluation = evaluate(loaded.model, [(images, labels)])
    assert evaluation.top1 is not None
    assert evaluation.top1 > 0.98
    assert evaluation.bytes == WEIGHTS.stat().st_size


def test_the_net_repeats_eight_kernels_of_one_shape() -> None:
    layers = survey(digits_net().eval(), digits("test")[0][:2])
    shapes = [layer.shape for layer in layers]
    assert shapes.count((32, 32, 3, 3)) == 8
    assert [layer.reason for layer in layers] == [None] * len(layers)
    assert 0.95 * sum(p.numel() for p in digits_net().parameters()) < 8 * 32 * 32 * 9


def test_training_writes_a_checkpoint_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "digits.safetensors"
    monkeypatch.setattr("kdna_convert.inputs.digits.WEIGHTS", target)
    monkeypatch.setattr(sys, "argv", ["train_digits.py", "--epochs", "1"])
    with torch.random.fork_rng():
        runpy.run_path(str(TRAINER), run_name="__main__")
    digits_net().load_state_dict(load_tensors(target)[0], strict=True)
    assert "of 540 test digits right" in capsys.readouterr().out
