"""The names `kdna:digits`, `kdna:digits/train` and `kdna:digits/test`: usable wherever MODEL and DATA are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.command import kdna
from support.hostile import built_for

from kdna_convert.core.errors import DataError, ModelError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import batches, check_classes, open_images
from kdna_convert.inputs.digits import WEIGHTS, digits
from kdna_convert.inputs.models import load_model
from kdna_convert.inputs.models.listing import coverage, known_models

OWN = load_model("kdna:digits").data


def read(name: str, config: DataConfig = OWN) -> tuple[torch.Tensor, torch.Tensor]:
    """All inputs and labels of a data set."""
    [(inputs, labels)] = batches(open_images(name, config), 2000)
    assert labels is not None
    return inputs, labels


# --- the net


def test_the_bundled_net_has_its_trained_weights() -> None:
    named, by_file = (
        load_model("kdna:digits"),
        load_model("kdna_convert.inputs.digits:digits_net", checkpoint=str(WEIGHTS)),
    )
    assert (named.ref.name, named.ref.checkpoint) == ("kdna:digits", None)
    assert (named.ref.sha256, named.data) == (by_file.ref.sha256, by_file.data)


def test_a_checkpoint_or_pretrained_false_replaces_them(tmp_path: Path) -> None:
    random = load_model("kdna:digits", pretrained=False)
    assert random.ref.sha256 == load_model("kdna:digits(pretrained=False)").ref.sha256
    assert random.ref.sha256 != load_model("kdna:digits").ref.sha256
    torch.save(random.model.state_dict(), tmp_path / "own.pth")
    assert load_model("kdna:digits", checkpoint=str(tmp_path / "own.pth")).ref.sha256 == random.ref.sha256


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("kdna:digit", "KD301", "kdna:digits"),
        ("kdna:", "KD301", "after the colon"),
        ("kdna:digits(9)", "KD302", "name only"),
    ],
)
def test_an_unknown_net_is_refused_with_the_names_there_are(name: str, code: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load_model(name)
    assert error.value.code == code


def test_the_bundled_net_is_listed() -> None:
    assert "kdna:digits" in known_models()


@pytest.mark.parametrize(
    "name", ["kdna:digits", "kdna_convert.inputs.digits:digits_net", "kdna_convert.digits:digits_net"]
)
def test_a_folder_may_name_the_bundled_net(name: str, tmp_path: Path) -> None:
    net = built_for(name, tmp_path)
    assert list(net.state_dict()) == list(load_model("kdna:digits").model.state_dict())


# --- the data


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_bundled_images_are_normalized_as_the_net_takes_them(part: str) -> None:
    inputs, labels = read(f"kdna:digits/{part}")
    expected, expected_labels = digits(part)  # type: ignore[arg-type]
    assert torch.equal(inputs, expected)
    assert torch.equal(labels, expected_labels)
    images = open_images("kdna:digits", OWN, split=part)
    assert (len(images), images.labeled) == (len(expected_labels), True)
    check_classes(images, 10)
    with pytest.raises(DataError, match="10 classes"):
        check_classes(images, 1000)


def test_a_limit_draws_some_of_them() -> None:
    images = open_images("kdna:digits/train", OWN, limit=7, seed=3)
    assert len(images) == 7
    assert images.positions == open_images("kdna:digits/train", OWN, limit=7, seed=3).positions


def test_another_input_size_is_interpolated_and_its_channels_repeated() -> None:
    config = DataConfig(input_size=(3, 16, 12), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0))
    inputs, _ = read("kdna:digits/test", config)
    assert inputs.shape == (540, 3, 16, 12)
    gray = [inputs[:, c] * config.std[c] + config.mean[c] for c in range(3)]
    torch.testing.assert_close(gray[0], gray[1])
    torch.testing.assert_close(gray[0], gray[2])
    torch.testing.assert_close(gray[0].mean(), (digits("test")[0] * 0.376 + 0.305).mean(), atol=0.01, rtol=0)


def test_names_and_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for name in ("kdna:digits", "kdna:digits/validation", "kdna:cifar/train"):
        with pytest.raises(DataError, match=r"KD401: .*kdna:digits/train or kdna:digits/test"):
            open_images(name, OWN)
    with pytest.raises(DataError, match="KD406"):
        open_images("kdna:digits/train", replace(OWN, input_size=(1, 4, 8, 8)))
    (tmp_path / "map.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match="KD402"):
        open_images("kdna:digits/train", OWN, class_map=tmp_path / "map.txt")


# --- both


def test_the_commands_take_the_bundled_names(tmp_path: Path) -> None:
    few = ["--set", "calibration.images=64", "--set", "calibration.heldout=32"]
    folder = tmp_path / "small"
    result = kdna("convert", "kdna:digits", "--data", "kdna:digits/train", "--target-params", 0.25, *few, "-o", folder)
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "plan.json").read_text())["model"]["name"] == "kdna:digits"
    measured = kdna("eval", folder, "--data", "kdna:digits/test", "--json")
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.stdout)["images"] == 540
    assert json.loads(measured.stdout)["top1"] > 0.9


def test_the_recorded_coverage_is_of_known_nets() -> None:
    known, recorded = set(known_models()), coverage()
    assert recorded
    assert len(set(recorded) - known) <= len(recorded) / 10, "most names are those of the installed releases"
    assert not [name for name, outcome in recorded.items() if outcome in ("traceback", "unequal")]
