"""A fine-tune by two processes: the result of one, written once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.command import kdna
from support.fine_tuning import SIX_STEPS
from support.processes import torchrun


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_and_one_writes(images: Path, folder: Path, tmp_path: Path) -> None:
    command = ("finetune", folder, "--data", images, *SIX_STEPS, "--train", "shared")
    done = torchrun("kdna_convert", *command, "-o", tmp_path / "two", "--jsonl", tmp_path / "log.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trainable params") == 1
    assert kdna(*command, "-o", tmp_path / "one").exit_code == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(two[name], tensor, atol=1e-5) for name, tensor in one.items())
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [*range(1, 7)]
    assert not (tmp_path / "two.part").exists()
    assert kdna("verify", tmp_path / "two").exit_code == 0


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_refused(images: Path, folder: Path, tmp_path: Path) -> None:
    done = torchrun("kdna_convert", "finetune", folder, "--data", images, "--batch-size", "9", "-o", tmp_path / "out")
    assert done.returncode != 0
    assert "KD408" in done.stderr
