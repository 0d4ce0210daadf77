"""Laws of a stream that two nodes of two processes each read: the result is that of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command import NET, convert, kdna
from support.processes import two_nodes
from support.shards import UNEVEN, noise, webdataset
from support.shared_streams import passes

from kdna_convert.core.linalg import Kronecker, Moment


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty images in five shards of different lengths, of which one is missing."""
    folder = tmp_path_factory.mktemp("stream") / "shards"
    name = webdataset(folder, [noise(seed) for seed in range(sum(UNEVEN))], UNEVEN)
    (folder / "some-003.tar").unlink()
    return name


@pytest.fixture(scope="module")
def one(data: str) -> dict[str, Any]:
    return passes(data)


@pytest.fixture(scope="module")
def four(data: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each process."""
    out = tmp_path_factory.mktemp("four")
    for node in two_nodes("support.shared_streams", data, out):
        assert node.returncode == 0, node.stderr
    return [torch.load(out / f"{number}.pt", weights_only=False) for number in range(4)]


def dense(moment: Moment) -> torch.Tensor:
    return torch.kron(moment.channels_cc, moment.taps_tt) if isinstance(moment, Kronecker) else moment


def test_four_processes_on_two_nodes_have_the_statistics_of_one(
    one: dict[str, Any], four: list[dict[str, Any]]
) -> None:
    for process in four:
        assert list(process["moments"]) == list(one["moments"])
        for layer, expected in one["moments"].items():
            own = process["moments"][layer]
            assert own.count == expected.count
            for actual, wanted in ((dense(own.second), dense(expected.second)), (own.mean, expected.mean)):
                assert float((actual - wanted).norm()) <= 1e-5 * float(wanted.norm())
        numbers = {name: value for name, value in one["evaluation"].items() if isinstance(value, int | float)}
        assert {name: process["evaluation"][name] for name in numbers} == pytest.approx(numbers, rel=1e-5)


def test_four_processes_train_on_the_batches_of_one(one: dict[str, Any], four: list[dict[str, Any]]) -> None:
    assert all(torch.equal(process["batches"], one["batches"]) for process in four)


def test_every_process_knows_the_missing_shard_and_reads_its_own(
    one: dict[str, Any], four: list[dict[str, Any]]
) -> None:
    assert one["skipped"] == ["some-003.tar: there is no such file (11 images)"]
    assert all(process["skipped"] == one["skipped"] for process in four)
    assert one["opened"] == [0, 1, 2, 3, 4]
    assert max(len(process["opened"]) for process in four) <= 2


@pytest.mark.slow
def test_two_nodes_fine_tune_from_a_stream_as_one_process(data: str, folder: Path, tmp_path: Path) -> None:
    command = ["finetune", folder, "--data", data, "--device", "cpu", "--steps", "6", "--batch-size", "8"]
    nodes = two_nodes("kdna_convert", *command, "-o", tmp_path / "four")
    assert [node.returncode for node in nodes] == [0, 0], [node.stderr for node in nodes]
    assert [node.stdout.count("trainable params") for node in nodes] == [1, 0]
    assert kdna(*command, "-o", tmp_path / "one").exit_code == 0
    one, four = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "four"))
    assert all(torch.allclose(four[name], tensor, atol=1e-5) for name, tensor in one.items())
    report = json.loads((tmp_path / "four" / "report.json").read_text())["finetune"]
    assert len(report["skipped"]) == 1


@pytest.mark.slow
def test_a_node_without_the_model_ends_all_with_its_error(data: str, folder: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(folder, here / "net")
    there.mkdir()
    nodes = two_nodes("kdna_convert", "eval", "net", "--data", data, "--device", "cpu", folders=(here, there))
    assert all(node.returncode != 0 for node in nodes)
    assert all("kdna: error KD" in node.stderr for node in nodes)
    assert "(process " in nodes[0].stderr
    assert "Traceback" not in nodes[0].stderr.partition("torch/distributed")[0]


@pytest.mark.slow
def test_a_node_with_the_output_already_ends_all_with_its_error(data: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (there / "out").mkdir(parents=True)
    nodes = two_nodes("kdna_convert", *convert(data, NET), "-o", "out", "--device", "cpu", folders=(here, there))
    assert all("KD601" in node.stderr for node in nodes)
    assert not (here / "out").exists()
