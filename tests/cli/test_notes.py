"""What a command says beside its result: notes before the work, what a stopped run leaves, and the next command."""

import re
from pathlib import Path

import pytest
from support.command import NET, TINY, convert, kdna
from support.commands import parse

from kdna_convert.inputs.models import factory_note
from kdna_convert.network.folder import open_folder
from kdna_convert.network.folder.work import work_place

DATA_FREE = "no calibration images"
FACTORY = "the weights are those that"


def test_a_conversion_without_images_says_so_before_the_calibration_and_once(tmp_path: Path) -> None:
    done = kdna("convert", NET, "--target-params", "0.6", "--set", "repair=[]", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    for note in (DATA_FREE, FACTORY):
        assert done.stderr.count(note) == 1
        assert done.stderr.index("load the model") < done.stderr.index(note) < done.stderr.index("calibrate")
        assert any(note in each for each in open_folder(tmp_path / "out").report.notes)


def test_notes_that_matter_are_printed_with_q_and_hints_are_not() -> None:
    done = kdna("plan", NET, "-q")
    assert DATA_FREE in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dense_recipe_without_images_fits_nothing(tmp_path: Path) -> None:
    done = kdna("convert", NET, "--scheme", "dense", "--codec", "fp16", "-o", tmp_path / "out", "-q")
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("model", "checkpoint", "noted"),
    [
        ("nets.py:small", None, True),
        ("my.package:net(width=3)", None, True),
        ("nets.py:small", "weights.pth", False),
        ("resnet18", None, False),
        ("torchvision:resnet18", None, False),
        ("kdna:digits", None, False),
        ("timm.models.resnet:resnet18", None, False),
        ("kdna_convert.api.layouts:kerneldna_resnet18", None, False),
        ("no name:", None, False),
    ],
)
def test_weights_that_only_a_users_factory_made_are_pointed_out(
    model: str, checkpoint: str | None, noted: bool
) -> None:
    assert (factory_note(model, checkpoint) is not None) == noted


@pytest.mark.parametrize("more", [[], ["--curve"]])
def test_a_plan_without_images_shows_no_expectation(more: list[str]) -> None:
    done = kdna("plan", NET, *more, "-q")
    assert "kept" in done.stdout
    assert not re.search(r"expected (agreement|KL)|nats|recommended|0 to 100", done.stdout)


def test_a_picture_without_anything_to_draw_is_refused(tmp_path: Path) -> None:
    assert "requires" in kdna("plan", NET, "--curve", "--plot", tmp_path / "curve.svg").stderr


@pytest.mark.parametrize(
    ("command", "following"),
    [
        (["analyze", NET, "--metric", "cka"], "plan {net} --data {data} --set seed=3 --curve"),
        (["plan", NET, "--target-macs", "0.9"], "convert {net} --data {data} --set seed=3 --target-macs 0.9 -o small"),
        (["plan", NET, "-o", "PLAN"], "convert {net} --data {data} --set seed=3 --plan PLAN -o small"),
        (["plan", NET, "--curve"], "convert {net} --data {data} --set seed=3 --target-params SHARE -o small"),
        (
            ["convert", NET, "--dry-run", "--target-macs", "0.9", "-o", "out"],
            "convert {net} --data {data} --set seed=3 --target-macs 0.9 -o out",
        ),
    ],
)
def test_the_next_command_repeats_the_arguments(
    command: list[str], following: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kdna(*command, "--data", images, "--set", "seed=3")
    assert done.exit_code == 0, done.stderr
    (line,) = re.findall(r"next  kdna (.*)", f"{done.stdout}\n{done.stderr}")
    parse(line)
    expected = re.escape(following.format(net=NET, data=images)).replace("SHARE", r"0\.\d+")
    assert re.fullmatch(expected, line)


def test_a_refused_conversion_says_what_resume_can_use(images: Path, tmp_path: Path) -> None:
    too_small = (*convert(images)[:-2], "--target-params", "0.001", "-o", tmp_path / "out")
    done = kdna(*too_small)
    work = work_place(tmp_path / "out")
    assert "KD501" in done.stderr
    assert f"{work} keeps what is done so far. --resume uses it." in done.stderr
    assert (work / "moments.safetensors").exists()
    calibrated = (work / "moments.safetensors").stat().st_mtime_ns
    kdna(*too_small, "--resume")
    assert (work / "moments.safetensors").stat().st_mtime_ns == calibrated


def test_what_is_refused_before_the_calibration_leaves_nothing(images: Path, tmp_path: Path) -> None:
    done = kdna("convert", f"{TINY}:nothing_to_convert", "--data", images, "-o", tmp_path / "out")
    assert "KD306" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_can_only_fail_again_leaves_nothing(images: Path, tmp_path: Path) -> None:
    done = kdna("run", "balanced", NET, "--data", images, "--target-params", "0.001", "-o", tmp_path / "out")
    assert "KD501" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_is_stopped_says_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, work: Path, **__: object) -> None:
        work.mkdir()
        (work / "moments.safetensors").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr("kdna_convert.api.convert.convert", stop)
    done = kdna("convert", NET, "-o", tmp_path / "out", "-q")
    assert done.exit_code == 130
    assert done.stderr.startswith(
        f"kdna: stopped. The state is in {work_place(tmp_path / 'out')}. Run the same command"
    )
