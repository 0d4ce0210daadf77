"""Laws of clips as DATA: which frames are read, what a clip and a class is, and what cannot be read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.pictures import CONFIG, code_of, labels, paint

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import batches, open_images
from kdna_convert.inputs.data.clips import evenly

CLIPS = replace(CONFIG, input_size=(3, 4, 8, 8))


def shoot(folder: Path, *values: int) -> None:
    """A clip of frames 1.png, 2.png, ..., each of one gray value."""
    for number, value in enumerate(values, 1):
        paint(folder / f"{number}.png", value)


def shades(folder: Path, config: DataConfig = CLIPS) -> dict[str, list[int]]:
    """The gray values of the frames that are read, by clip."""
    images = open_images(folder, config)
    clips = [clip for inputs, _ in batches(images) for clip in inputs]
    names = [images.source.name(position) for position in images.positions]
    return {name: (255 * clip.mean((0, 2, 3))).round().int().tolist() for name, clip in zip(names, clips, strict=True)}


def test_frames_are_the_middles_of_equal_parts_and_short_clips_repeat_them() -> None:
    assert evenly(16, 4) == [2, 6, 10, 14]
    assert evenly(4, 4) == [0, 1, 2, 3]
    assert evenly(2, 4) == [0, 0, 1, 1]
    assert evenly(0, 4) == []


def test_each_folder_of_frames_is_a_clip_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shoot(tmp_path / "b", *range(1, 13))
    shoot(tmp_path / "a", 7, 9)
    assert shades(tmp_path) == {"a": [7, 7, 9, 9], "b": [2, 5, 8, 11]}


def test_the_folder_above_the_clips_is_their_class(tmp_path: Path) -> None:
    for clip in ("run/one", "run/two", "walk/one"):
        shoot(tmp_path / clip, 1, 2)
    images = open_images(tmp_path, CLIPS)
    assert (dict(images.classes), labels(images)) == ({"run": 0, "walk": 1}, [0, 0, 1])
    (tmp_path / "map.txt").write_text("walk\n")
    mapped = open_images(tmp_path, CLIPS, class_map=tmp_path / "map.txt")
    assert labels(mapped) == [0]
    assert mapped.skipped == [f"run/{name}: its folder is not in the class map" for name in ("one", "two")]
    assert not open_images(tmp_path / "run", CLIPS).labeled


def test_frames_are_resized_cropped_and_normalized_as_images(tmp_path: Path) -> None:
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    (tmp_path / "clips" / "a").mkdir(parents=True)
    for number in range(4):
        picture.rotate(90 * number).save(tmp_path / "clips" / "a" / f"{number}.png")
    normalized = replace(CLIPS, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), crop_pct=0.8)
    ((clip, _),) = batches(open_images(tmp_path / "clips", normalized))
    ((frames, _),) = batches(open_images(tmp_path / "clips" / "a", replace(normalized, input_size=(3, 8, 8))))
    assert torch.equal(clip[0], frames.transpose(0, 1))


def test_a_clip_with_a_damaged_frame_is_skipped(tmp_path: Path) -> None:
    shoot(tmp_path / "good", 1, 2)
    shoot(tmp_path / "torn", 1, 2)
    (tmp_path / "torn" / "2.png").write_bytes(b"...")
    images = open_images(tmp_path, CLIPS)
    assert [len(inputs) for inputs, _ in batches(images)] == [1]
    assert images.skipped == ["torn: 2.png: not an image"]


@pytest.mark.parametrize(
    ("files", "changed", "code", "words"),
    [
        (["1.png", "a/1.png"], {}, "KD401", "a folder of its own"),
        (["a.txt"], {}, "KD401", "no clips found"),
        (["a/1.png"], {"crop_mode": "random"}, "KD406", "--crop middle"),
    ],
    ids=["flat", "none", "random"],
)
def test_folders_that_are_refused_say_what_to_do(
    tmp_path: Path, files: list[str], changed: Any, code: str, words: str
) -> None:
    for file in files:
        paint(tmp_path / file, 1) if file.endswith(".png") else (tmp_path / file).write_text("")
    with pytest.raises(DataError, match=words) as error:
        open_images(tmp_path, replace(CLIPS, **changed))
    assert code_of(error) == code


def test_videos_without_their_package_are_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"...")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install av") as error:
        open_images(tmp_path, CLIPS)
    assert code_of(error) == "KD401"


def test_a_video_is_a_clip_and_a_damaged_one_is_skipped(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.avi"), "w") as video:
        stream = video.add_stream("mjpeg", rate=8, width=32, height=32, pix_fmt="yuvj420p")
        for value in range(0, 192, 16):
            video.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 32), (value,) * 3))))
        video.mux(stream.encode(None))
    (tmp_path / "b.mp4").write_bytes(b"no video")
    images = open_images(tmp_path, CLIPS)
    ((clip, _),) = batches(images)
    assert (255 * clip[0].mean((0, 2, 3)) - torch.tensor([16.0, 64.0, 112.0, 160.0])).abs().max() < 3
    assert len(images.skipped) == 1
    assert images.skipped[0].startswith("b.mp4: ")
