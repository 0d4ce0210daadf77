"""Laws of several processes: each has the result of one process, and an error ends all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command import NET, convert, kdna
from support.processes import torchrun
from support.shared_passes import BATCHES, passes
from torch import Tensor

from kdna_convert.core.linalg import Kronecker, Moment

ONES = [*BATCHES, "folder"]


@pytest.fixture(scope="module")
def damaged(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images with two that cannot be read: each process gets one."""
    folder = tmp_path_factory.mktemp("damaged") / "images"
    shutil.copytree(images, folder)
    for place in ("class0/00.png", "class2/27.png"):
        (folder / place).write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def one(damaged: Path) -> dict[str, Any]:
    return passes(damaged)


@pytest.fixture(scope="module")
def two(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each of two processes."""
    out = tmp_path_factory.mktemp("two")
    done = torchrun("support.shared_passes", damaged, out)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{number}.pt", weights_only=False) for number in range(2)]


def same(actual: Tensor, expected: Tensor) -> bool:
    return float((actual - expected).norm()) <= 1e-5 * float(expected.norm())


def dense(moment: Moment) -> Tensor:
    return torch.kron(moment.channels_cc, moment.taps_tt) if isinstance(moment, Kronecker) else moment


@pytest.mark.parametrize("name", ONES)
def test_moments_and_sensitivities_of_two_processes_are_those_of_one(
    one: dict[str, Any], two: list[dict[str, Any]], name: str
) -> None:
    expected = one[name]["moments"]
    for process in two:
        moments = process[name]["moments"]
        assert list(moments) == list(expected)
        for layer, item in expected.items():
            assert same(dense(moments[layer].second), dense(item.second))
            assert same(moments[layer].mean, item.mean)
            assert same(moments[layer].gram_ee, item.gram_ee)
            assert moments[layer].count == item.count
            assert same(moments[layer].gradient, item.gradient)


def assert_close(measured: dict[str, Any], expected: dict[str, Any]) -> None:
    """Numbers are equal to 1e-5, everything else is the same."""
    numbers = {name for name, value in expected.items() if isinstance(value, int | float)}
    assert measured.keys() == expected.keys()
    assert {name: measured[name] for name in numbers} == pytest.approx(
        {name: expected[name] for name in numbers}, rel=1e-5
    )
    assert all(measured[name] == expected[name] for name in expected.keys() - numbers)


@pytest.mark.parametrize("name", ONES)
def test_divergence_and_accuracy_of_two_processes_are_those_of_one(
    one: dict[str, Any], two: list[dict[str, Any]], name: str
) -> None:
    for process in two:
        assert_close(process[name]["evaluation"], one[name]["evaluation"])


@pytest.mark.parametrize("name", ONES)
def test_every_process_has_the_same_result_to_the_bit(two: list[dict[str, Any]], name: str) -> None:
    first, second = (process[name]["moments"] for process in two)
    assert all(torch.equal(dense(first[layer].second), dense(second[layer].second)) for layer in first)
    assert two[0][name]["evaluation"] == two[1][name]["evaluation"]


def test_each_image_is_decoded_by_one_process(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    shares = [process["folder"]["decoded"] for process in two]
    assert sum(shares) == one["folder"]["decoded"]
    assert max(shares) <= 0.6 * sum(shares)


def test_every_process_knows_which_images_none_could_read(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert len(one["folder"]["skipped"]) == 2
    assert all(sorted(process["folder"]["skipped"]) == sorted(one["folder"]["skipped"]) for process in two)


@pytest.mark.parametrize("verb", ["collect", "evaluate"])
def test_an_error_in_one_process_ends_both_with_its_code(
    one: dict[str, Any], two: list[dict[str, Any]], verb: str
) -> None:
    assert [process[verb] for process in (one, *two)] == ["KD702"] * 3


def test_two_processes_print_one_evaluation(damaged: Path, folder: Path) -> None:
    command = ("eval", folder, "--data", damaged, "--device", "cpu", "--json")
    done, alone = torchrun("kdna_convert", *command), kdna(*command)
    assert done.returncode == alone.exit_code == 0, done.stderr
    printed, expected = json.loads(done.stdout), json.loads(alone.stdout)
    assert sorted(printed.pop("skipped")) == sorted(expected.pop("skipped"))
    assert_close(printed, expected)


def test_a_single_process_command_refuses_several_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = [["code", folder, "--target-bytes", "1/8", "-o", tmp_path / "out"], ["convert", NET, "--dry-run"]]
    for command in alone:
        done = kdna(*command)
        assert done.exit_code == 2
        assert "KD410" in done.stderr
    assert not (tmp_path / "out").exists()


def test_healing_refuses_several_processes(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdna_convert.api.heal.count", lambda: 2)
    done = kdna(*convert(images), "--progressive", "2", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "KD410" in done.stderr


@pytest.mark.slow
def test_two_processes_write_the_folder_that_one_writes(images: Path, tmp_path: Path) -> None:
    command = [*convert(images), "--device", "cpu"]
    done = torchrun("kdna_convert", *command, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parameters kept") == 1
    assert kdna(*command, "-o", tmp_path / "one").exit_code == 0
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], tensor, atol=1e-4) for name, tensor in theirs.items())
    assert not (tmp_path / "two.part").exists()
    assert kdna("verify", tmp_path / "two").exit_code == 0


@pytest.mark.slow
def test_two_processes_analyze_as_one_and_print_once(images: Path) -> None:
    command = ("analyze", NET, "--data", images, "--device", "cpu", "--json")
    done, alone = torchrun("kdna_convert", *command), kdna(*command)
    assert done.returncode == alone.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["layers"]) == len(json.loads(alone.stdout)["layers"])


@pytest.mark.slow
def test_an_activation_that_is_not_finite_ends_both_processes_with_its_code(images: Path, tmp_path: Path) -> None:
    sick = NET.replace(":net", ":sick_activation")
    done = torchrun("kdna_convert", *convert(images, sick), "--device", "cpu", "-o", tmp_path / "out")
    assert done.returncode != 0
    assert "KD702" in done.stderr
    assert not (tmp_path / "out").exists()
