"""Files that are made to hang or to fill the memory are refused or skipped at once."""

import os
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.pictures import CONFIG, code_of, paint, values

from kdna_convert.core.errors import CheckpointError, DataError
from kdna_convert.inputs.data import decoding, open_images, sources
from kdna_convert.inputs.models import read_state_dict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value in range(3):
        paint(tmp_path / "images" / f"{value}.png", value)
    return tmp_path / "images"


def test_a_fifo_or_a_device_among_the_images_is_skipped(folder: Path) -> None:
    os.mkfifo(folder / "1a.png")
    (folder / "1b.png").symlink_to("/dev/zero")
    images = open_images(folder, CONFIG)
    assert values(images) == [0, 1, 2]
    assert [line.split(":")[0] for line in images.skipped] == ["1a.png", "1b.png"]
    assert all("not a regular file" in line for line in images.skipped)


def test_a_link_to_an_image_is_read(folder: Path) -> None:
    (folder / "9.png").symlink_to(folder / "2.png")
    assert values(open_images(folder, CONFIG)) == [0, 1, 2, 2]


def test_a_fifo_named_tar_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "images.tar")
    with pytest.raises(DataError, match="KD401"):
        open_images(tmp_path / "images.tar", CONFIG)


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_an_image_above_the_pixel_limit_is_skipped_with_a_code(folder: Path, side: int) -> None:
    assert side**2 > decoding.MOST_PIXELS
    Image.new("1", (side, side)).save(folder / "huge.png")
    images = open_images(folder, CONFIG)
    assert values(images) == [0, 1, 2]
    assert [line for line in images.skipped if line.startswith("huge.png: KD411: ") and "89,478,485" in line]


def test_links_that_lead_back_are_refused(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "back").symlink_to(folder, target_is_directory=True)
    with pytest.raises(DataError, match=r"KD401: .*a/back leads back to a folder above it"):
        open_images(folder, CONFIG)


def test_links_that_lead_into_each_other_are_refused(folder: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (folder / one).mkdir()
        (folder / one / "on").symlink_to(folder / other, target_is_directory=True)
    with pytest.raises(DataError, match=r"KD401: .* leads back"):
        open_images(folder, CONFIG)


def test_links_that_multiply_the_paths_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_LINKED", 100)
    places = [folder / "deep" / str(level) for level in range(40)]
    for place in places:
        place.mkdir(parents=True)
    for above, below in pairwise(places):
        for side in "lr":
            (above / side).symlink_to(below, target_is_directory=True)
    with pytest.raises(DataError, match=r"KD401: .* is one of 101 folders by links"):
        open_images(folder, CONFIG)


def test_folders_by_links_are_read(folder: Path, tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "7.png", 7)
    (folder / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert values(open_images(folder, CONFIG)) == [0, 1, 2, 7]


def test_a_state_dict_inside_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, object] = {"model": {}}
    content["state_dict"] = content
    torch.save(content, tmp_path / "ring.pth")
    with pytest.raises(CheckpointError, match=r"KD304: .*inside itself"):
        read_state_dict(str(tmp_path / "ring.pth"))


def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2**20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    assert read_state_dict(str(tmp_path / "plain.pth")).keys() == {"weight"}
    with pytest.raises(CheckpointError, match=r"KD304: .*unpacks to"):
        read_state_dict(str(tmp_path / "bomb.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_fifo_or_a_device_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero{name}"):
        with pytest.raises(CheckpointError) as error:
            read_state_dict(str(path))
        assert code_of(error) == "KD304"
