"""IMAGES::LABELS: masks, boxes and targets go through the same resizing and cropping as their image."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Images, batches, open_images

CONFIG = DataConfig((3, 16, 16), (0.0,) * 3, (1.0,) * 3, crop_pct=1.0)
SIZES = {"a": (40, 30), "b": (20, 32), "c": (16, 16)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        pixels = np.random.RandomState(seed).randint(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def masks(photos: Path, value: int = 3) -> Path:
    """Masks that are 1 where the image's red is above 127, and `value` at the last pixel."""
    folder = photos.parent / "masks"
    folder.mkdir()
    for file in photos.iterdir():
        with Image.open(file) as image:
            red = np.asarray(image)[..., 0]
        mask = (red > 127).astype(np.uint8)
        mask[-1, -1] = value
        Image.fromarray(mask).save(folder / file.name)
    return folder


def read(path: str, config: DataConfig = CONFIG) -> tuple[Images, torch.Tensor, torch.Tensor]:
    images = open_images(path, config)
    [(inputs, labels)] = batches(images, 8)
    assert labels is not None
    return images, inputs, labels


@pytest.mark.parametrize("mode", ["middle", "random"])
def test_a_mask_is_cut_with_its_image(photos: Path, mode: str) -> None:
    _, inputs, labels = read(f"{photos}::{masks(photos)}", replace(CONFIG, crop_mode=mode))
    assert labels.shape == (3, 16, 16)
    red = (inputs[:, 0] * 255).round() > 127
    assert ((labels == 1) == red)[labels < 2].all()


def test_a_mask_is_resized_with_its_image(photos: Path) -> None:
    _, inputs, labels = read(f"{photos}::{masks(photos)}")
    assert labels.shape == inputs.shape[:1] + inputs.shape[2:]
    assert set(labels.unique().tolist()) <= {0, 1, 3}


def test_the_images_of_pairs_are_those_without_labels(photos: Path) -> None:
    _, inputs, _ = read(f"{photos}::{masks(photos)}")
    [(plain, _)] = batches(open_images(photos, CONFIG), 8)
    assert torch.allclose(inputs, plain, atol=1.5 / 255)


def coco(photos: Path, box: list[float], file: str = "a.png") -> Path:
    width, height = SIZES["a"]
    content = {
        "images": [{"id": 7, "file_name": file, "width": width, "height": height}]
        + [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("bc")],
        "annotations": [{"image_id": 7, "bbox": box, "category_id": 5, "iscrowd": 0}],
    }
    path = photos.parent / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_a_box_is_resized_and_cropped_with_its_image(photos: Path) -> None:
    """a is 40 x 30: resized by 16 / 30 to 21 x 16, of which the middle 16 remain."""
    _, _, labels = read(f"{photos}::{coco(photos, [10, 5, 20, 10])}")
    assert labels.shape == (3, 300, 5)
    assert labels[0, 0].tolist() == pytest.approx([10 * 21 / 40 - 2, 5 * 16 / 30, 30 * 21 / 40 - 2, 8, 5], abs=0.6)
    assert (labels[0, 1:] == -1).all()
    assert (labels[1:] == -1).all()


def test_vocs_boxes_take_their_classes_from_the_map(photos: Path) -> None:
    folder, names = photos.parent / "Annotations", photos.parent / "classes.txt"
    folder.mkdir()
    names.write_text("background\ncat\ndog\n")
    for name, (width, height) in SIZES.items():
        box = f"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{width}</xmax><ymax>{height}</ymax></bndbox>"
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (folder / f"{name}.xml").write_text(f"<annotation>{size}<object><name>dog</name>{box}</object></annotation>")
    images = open_images(f"{photos}::{folder}", CONFIG, class_map=names)
    [(_, labels)] = batches(images, 8)
    assert labels is not None
    assert labels[:, 0].tolist() == [[0, 0, 16, 16, 2]] * 3
    with pytest.raises(DataError, match=r"KD402.*--class-map"):
        open_images(f"{photos}::{folder}", CONFIG)


@pytest.mark.parametrize("how", ["x2", "noise25", "jpeg40", "x2,jpeg60"])
def test_an_input_is_made_from_its_target(photos: Path, how: str) -> None:
    config = replace(CONFIG, input_size=(3, 8, 8), crop_mode="middle")
    _, inputs, targets = read(f"{photos}::{how}", config)
    factor = 2 if "x2" in how else 1
    assert (inputs.shape[2:], targets.shape[2:]) == ((8, 8), (8 * factor, 8 * factor))
    assert not torch.equal(inputs, targets)
    _, again, _ = read(f"{photos}::{how}", config)
    assert torch.equal(inputs, again)


def test_targets_are_cut_where_their_inputs_are(photos: Path) -> None:
    high = photos.parent / "high"
    high.mkdir()
    for file in photos.iterdir():
        with Image.open(file) as image:
            image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(high / file.name)
    _, inputs, targets = read(f"{photos}::{high}", replace(CONFIG, crop_mode="random"))
    assert torch.equal(inputs, targets[:, :, ::2, ::2])


def test_labels_that_do_not_fit_are_refused_when_they_are_opened(photos: Path) -> None:
    folder = masks(photos)
    Image.new("L", (5, 5)).save(folder / "b.png")
    for labels, reason in (
        (lambda: folder, "the mask of b.png has"),
        (lambda: coco(photos, [10, 5, 200, 10]), "a.png: the box"),
        (lambda: coco(photos, [10, 5, 20, 10], "z.png"), "2 of 3 images, none for a.png"),
    ):
        with pytest.raises(DataError, match="KD412") as refused:
            open_images(f"{photos}::{labels()}", CONFIG)
        assert reason in refused.value.message
    (folder / "b.png").unlink()
    with pytest.raises(DataError, match=r"KD412.*2 of 3 images, none for b.png"):
        open_images(f"{photos}::{folder}", CONFIG)
    for path, reason in (
        (f"{photos}::nowhere", "no such file or folder of labels"),
        (f"{photos}::", "write IMAGES::LABELS"),
        (f"::{folder}", "write IMAGES::LABELS"),
        (f"{photos}::{folder}::x4", "write IMAGES::LABELS"),
        (f"{photos}.tar::{folder}", "no such folder"),
    ):
        with pytest.raises(DataError, match="KD401") as refused:
            open_images(path, CONFIG)
        assert reason in refused.value.message
    with pytest.raises(DataError, match=r"KD412.*write x1 to x16"):
        open_images(f"{photos}::x99", CONFIG)
    (photos.parent / "broken.json").write_text("[1, 2")
    with pytest.raises(DataError, match=r"KD412.*not COCO's json"):
        open_images(f"{photos}::{photos.parent / 'broken.json'}", CONFIG)


def test_a_random_part_is_another_for_each_image_and_the_same_in_every_run(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    place = np.arange(64 * 64, dtype=np.int64).reshape(64, 64)
    for seed in range(4):
        pixels = np.stack([place % 64, place // 64, np.full_like(place, seed)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    config = replace(CONFIG, crop_mode="random")
    [(parts, _)] = batches(open_images(folder, config), 8)
    corners = (parts[:, :2, 0, 0] * 255).round()
    assert len({tuple(corner.tolist()) for corner in corners}) > 1
    assert torch.equal(parts[0, 0, 0], parts[0, 0, 1])  # no pixel is resized
    [(again, _)] = batches(open_images(folder, config), 8)
    assert torch.equal(parts, again)


def test_a_label_has_the_path_of_its_image_and_a_name_counts_where_it_is_unique(tmp_path: Path) -> None:
    for folder in ("photos/a", "photos/b", "masks/a", "masks/b"):
        (tmp_path / folder).mkdir(parents=True)
    for value, part in enumerate("ab", start=1):
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / part / "1.png")
        Image.new("L", (16, 16), value).save(tmp_path / "masks" / part / "1.png")
    _, _, labels = read(f"{tmp_path / 'photos'}::{tmp_path / 'masks'}")
    assert labels.flatten(1)[:, 0].tolist() == [1, 2]
    (tmp_path / "masks/b/1.png").unlink()
    with pytest.raises(DataError, match=r"KD412.*1 of 2 images, none for b/1.png"):
        open_images(f"{tmp_path / 'photos'}::{tmp_path / 'masks'}", CONFIG)


def test_an_annotation_of_an_image_of_another_size_is_refused(photos: Path) -> None:
    path = coco(photos, [10, 5, 20, 10])
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": 640, "height": 480}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"KD412.*of \(640, 480\) pixels, and the image has \(40, 30\)"):
        open_images(f"{photos}::{path}", CONFIG)
    content["images"][0] = {"id": 7, "file_name": "a.png"}
    content["annotations"][0]["bbox"] = [1, 1, float("inf"), 5]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"KD412.*is not in its image"):
        open_images(f"{photos}::{path}", CONFIG)


def test_cocos_categories_are_numbered_by_a_class_map_and_empty_boxes_left_out(photos: Path) -> None:
    path, names = coco(photos, [10, 5, 20, 10]), photos.parent / "names.txt"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 5, "name": "zebra"}]
    content["annotations"].append({"image_id": 7, "bbox": [3, 3, 0, 4], "category_id": 5})
    path.write_text(json.dumps(content))
    names.write_text("background\nzebra\n")
    [(_, labels)] = batches(open_images(f"{photos}::{path}", CONFIG, class_map=names), 8)
    assert labels is not None
    assert (labels[0, 0, 4], labels[0, 1, 4]) == (1, -1)
    names.write_text("cat\n")
    with pytest.raises(DataError, match=r"KD402.*does not name 'zebra'"):
        open_images(f"{photos}::{path}", CONFIG, class_map=names)
    content["annotations"] = ["nothing"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"KD412.*not COCO"):
        open_images(f"{photos}::{path}", CONFIG)


def test_pictures_of_one_channel_are_what_their_prefix_says(tmp_path: Path) -> None:
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
        Image.new("L", (16, 16), 100).save(tmp_path / folder / "1.png")
    config, pair = DataConfig((1, 16, 16), (0.0,), (1.0,), crop_pct=1.0), f"{tmp_path / 'low'}::"
    with pytest.raises(DataError, match=r"KD412.*::mask:.* or ::target:"):
        open_images(f"{pair}{tmp_path / 'high'}", config)
    _, _, targets = read(f"{pair}target:{tmp_path / 'high'}", config)
    _, _, classes = read(f"{pair}mask:{tmp_path / 'high'}", config)
    assert (targets.dtype, classes.dtype) == (torch.float32, torch.int64)
    assert (classes == 100).all()


def test_masks_with_colors_are_refused_and_those_of_16_bits_are_read(photos: Path) -> None:
    folder = masks(photos)
    for file in photos.iterdir():
        with Image.open(file) as image:
            size = image.size
        Image.fromarray(np.full((size[1], size[0]), 3, dtype=np.uint16)).save(folder / file.name)
    _, _, labels = read(f"{photos}::{folder}")
    assert (labels == 3).all()
    Image.new("RGB", SIZES["b"]).save(folder / "b.png")
    with pytest.raises(DataError, match=r"KD412.*b.png has colors"):
        open_images(f"{photos}::{folder}", CONFIG)


def test_images_of_16_bits_keep_their_brightness(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    Image.fromarray(np.full((16, 16), 30000, dtype=np.uint16)).save(folder / "1.png")
    [(inputs, _)] = batches(open_images(folder, CONFIG), 1)
    assert float(inputs.mean()) == pytest.approx(30000 / 65535, abs=0.005)


def test_a_damaged_label_or_image_is_skipped_and_listed(photos: Path) -> None:
    folder = masks(photos)
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 2])
    (photos / "b.png").write_bytes(b"nothing")
    images, inputs, _ = read(f"{photos}::{folder}")
    assert len(inputs) == 1
    assert [line.split(":")[0] for line in images.skipped] == ["a.png", "b.png"]


@pytest.mark.parametrize("how", ["x99", "x4,x2", "jpeg0", "noise300"])
def test_a_degradation_that_is_none_is_refused(photos: Path, how: str) -> None:
    with pytest.raises(DataError, match=r"KD412.*at most once"):
        open_images(f"{photos}::{how}", CONFIG)
    with pytest.raises(DataError, match=r"KD412.*JPEG has 1 or 3 channels"):
        open_images(f"{photos}::jpeg40", DataConfig((4, 16, 16), (0.0,) * 4, (1.0,) * 4))
