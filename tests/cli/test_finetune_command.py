"""`kdna finetune`: what it prints and writes, and what it refuses, before the work if possible."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.command import TINY, convert, kdna

from kdna_convert.inputs.models import load_model

TRAINING = ("--batch-size", "8", "--steps", "2")


def refused(code: str, *arguments: object) -> str:
    done = kdna(*arguments)
    assert done.exit_code == 2, done.output
    assert f"error {code}: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


def test_it_prints_the_trainable_parameters_and_records_its_settings(
    images: Path, folder: Path, tmp_path: Path
) -> None:
    done = kdna("finetune", folder, "--data", images, *TRAINING, "--train", "shared", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("trainable params: ")
    tuned = json.loads((tmp_path / "out" / "report.json").read_text())["finetune"]
    assert tuned["settings"]["train"] == "shared"
    assert tuned["settings"]["steps"] == tuned["steps"] == 2


def test_a_flat_folder_without_labels_is_enough(images: Path, folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in images.rglob("*.png"):
        shutil.copy(path, flat)
    command = ("finetune", folder, "--data", flat, *TRAINING)
    assert kdna(*command, "-o", tmp_path / "out").exit_code == 0
    assert "labels" in refused("KD403", *command, "--label-weight", "1", "-o", tmp_path / "other")


def test_images_that_cannot_be_read_are_skipped_and_counted(images: Path, folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(images, tmp_path / "images")
    for number in range(0, 60, 10):
        path = broken / "class0" / f"{number:02}.png"
        path.write_bytes(path.read_bytes()[:40])
    done = kdna("finetune", folder, "--data", broken, "--batch-size", "8", "--epochs", "2", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "6 images were skipped" in done.stderr


def test_classes_are_checked_only_if_labels_are_used(folder: Path, tmp_path: Path) -> None:
    for number in range(20):
        place = tmp_path / "images" / f"kind{number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (10 * number, 0, 0)).save(place)
    command = ("finetune", folder, "--data", tmp_path / "images", *TRAINING)
    assert kdna(*command, "-o", tmp_path / "out").exit_code == 0
    refused("KD402", *command, "--label-weight", "1", "-o", tmp_path / "other")


def test_missing_or_foreign_folders_are_refused(images: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("KD401", "finetune", folder, "--data", tmp_path / "empty", "-o", tmp_path / "out")
    refused("KD602", "finetune", images, "--data", images, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_teacher_is_refused(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    net = load_model(f"{TINY}:net").model
    save_file(net.state_dict(), weights)
    out = tmp_path / "out"
    assert kdna(*convert(images), "--checkpoint", weights, "-o", out).exit_code == 0
    torch.nn.init.zeros_(net.fc.bias)
    save_file(net.state_dict(), weights)
    refused("KD607", "finetune", out, "--data", images, "-o", tmp_path / "tuned")
    weights.unlink()
    refused("KD607", "finetune", out, "--data", images, "-o", tmp_path / "tuned")


@pytest.mark.parametrize("time", ["10", "0m", "ten minutes"])
def test_an_invalid_time_is_refused(time: str, images: Path, folder: Path, tmp_path: Path) -> None:
    done = kdna("finetune", folder, "--data", images, "--time", time, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "1.5h" in done.stderr


def test_two_lengths_are_refused(images: Path, folder: Path, tmp_path: Path) -> None:
    message = refused("KD208", "finetune", folder, "--data", images, *TRAINING, "--time", "1m", "-o", tmp_path / "out")
    assert "give one of time, epochs and steps" in message


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is here")
def test_missing_tensorboard_is_reported_before_the_work(images: Path, folder: Path, tmp_path: Path) -> None:
    done = kdna("finetune", folder, "--data", images, "--track", tmp_path / "runs", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "pip install tensorboard" in done.stderr
