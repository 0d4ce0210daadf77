"""Laws of DATA: which images are read, their order and labels, and how unreadable ones are handled."""

import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm.data
import torch
from PIL import Image
from support.pictures import CONFIG, code_of, labels, paint, values
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import as_images, batches, check_classes, open_images, split, timm_datasets
from kdna_convert.inputs.models import override


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three class folders of four images, painted 0 to 11 in the order of their paths."""
    for value in range(12):
        paint(tmp_path / "images" / "abc"[value // 4] / f"{value:02}.png", value)
    return tmp_path / "images"


# --- reading


def test_a_folder_of_class_folders_is_labeled_in_their_order(folder: Path) -> None:
    images = open_images(folder, CONFIG)
    assert (len(images), images.labeled, dict(images.classes)) == (12, True, {"a": 0, "b": 1, "c": 2})
    assert values(images) == list(range(12))
    assert labels(images) == [0] * 4 + [1] * 4 + [2] * 4


def test_batches_are_float32_and_the_last_one_is_what_is_left(folder: Path) -> None:
    shapes = [
        (tuple(x.shape), x.dtype, None if y is None else y.dtype) for x, y in batches(open_images(folder, CONFIG), 5)
    ]
    assert shapes == [((size, 3, 8, 8), torch.float32, torch.int64) for size in (5, 5, 2)]


def test_worker_processes_change_nothing(folder: Path) -> None:
    images = open_images(folder, CONFIG, limit=9)
    assert values(images, batch_size=2, workers=2) == values(images, batch_size=2)


def test_reading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    values(open_images(folder, CONFIG, limit=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_image_becomes_what_timms_evaluation_transform_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    config = override(DataConfig(), input_size=[16], interpolation="bilinear")
    transform = timm.data.create_transform(
        (3, 16, 16), interpolation="bilinear", mean=config.mean, std=config.std, crop_pct=config.crop_pct
    )
    ((inputs, _),) = batches(open_images(tmp_path, config))
    assert torch.equal(inputs[0], transform(Image.open(path).convert("RGB")))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_an_image_has_the_channels_the_net_takes(folder: Path, channels: int, mode: str) -> None:
    config = override(CONFIG, input_size=(channels, 8, 8))
    ((inputs, _),) = batches(open_images(folder, config))
    assert inputs.shape == (12, channels, 8, 8), mode


def test_a_net_without_image_inputs_needs_tensors(folder: Path) -> None:
    with pytest.raises(DataError, match="pass tensors") as error:
        open_images(folder, DataConfig((5, 8, 8), (0.0,) * 5, (1.0,) * 5))
    assert code_of(error) == "KD406"


@pytest.mark.parametrize("nested", ["", "some/where"])
def test_images_without_class_folders_have_no_labels(tmp_path: Path, nested: str) -> None:
    for value in range(3):
        paint(tmp_path / nested / f"{value}.png", value)
    images = open_images(tmp_path, CONFIG)
    assert (images.labeled, dict(images.classes)) == (False, {})
    assert [labels for _, labels in batches(images)] == [None]
    assert values(images) == [0, 1, 2]


def test_images_beside_class_folders_leave_all_without_labels(folder: Path) -> None:
    paint(folder / "cover.png", 99)
    images = open_images(folder, CONFIG)
    assert not images.labeled
    assert sorted(values(images)) == [*range(12), 99]


def test_a_split_names_a_subfolder(folder: Path) -> None:
    assert values(open_images(folder, CONFIG, split="b")) == [4, 5, 6, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tar_file_reads_like_its_folder(folder: Path, tmp_path: Path, workers: int) -> None:
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(folder, ".")
    images = open_images(tmp_path / "images.tar", CONFIG)
    assert (images.labeled, images.classes) == (True, open_images(folder, CONFIG).classes)
    assert values(images) == values(images, batch_size=3, workers=workers) == list(range(12))
    assert labels(images) == labels(open_images(folder, CONFIG))


# --- what cannot be read


def test_a_damaged_image_is_skipped_and_listed_once(folder: Path) -> None:
    whole = (folder / "b" / "05.png").read_bytes()
    (folder / "b" / "05.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c" / "08.png").write_bytes(b"not an image")
    images = open_images(folder, CONFIG)
    left = [value for value in range(12) if value not in (5, 8)]
    assert values(images, batch_size=4) == values(images, batch_size=4, workers=1) == left
    assert len(labels(images)) == len(left)
    assert [line.split(":")[0] for line in images.skipped] == ["b/05.png", "c/08.png"]


def test_an_image_that_vanishes_is_skipped(folder: Path) -> None:
    images = open_images(folder, CONFIG)
    (folder / "a" / "00.png").unlink()
    assert values(images) == list(range(1, 12))
    assert images.skipped[0].startswith("a/00.png: ")


def test_parts_list_what_they_skip_in_one_place(folder: Path) -> None:
    (folder / "a" / "00.png").write_bytes(b"")
    images = open_images(folder, CONFIG)
    for part in split(images, [6, 6]):
        values(part)
    assert len(images.skipped) == 1


def test_no_readable_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 1 images.*a\.png") as error:
        values(open_images(tmp_path, CONFIG))
    assert code_of(error) == "KD401"


@pytest.mark.parametrize("what", ["gone", "empty", "notes.txt", "broken.tar", "empty.tar"])
def test_a_place_without_images_is_named(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no images here")
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 200)
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(DataError, match=what) as error:
        open_images(tmp_path / what, CONFIG)
    assert code_of(error) == "KD401"


# --- drawing and splitting


def test_a_limit_draws_by_the_seed_from_all_classes(folder: Path) -> None:
    drawn = values(open_images(folder, CONFIG, limit=6, seed=3))
    assert drawn == values(open_images(folder, CONFIG, limit=6, seed=3)) == [5, 4, 1, 2, 11, 6]
    assert drawn != values(open_images(folder, CONFIG, limit=6, seed=4))
    assert {value // 4 for value in drawn} == {0, 1, 2}
    assert values(open_images(folder, CONFIG, limit=100)) == list(range(12))


def test_the_draw_does_not_depend_on_the_order_in_which_files_are_found(folder: Path, tmp_path: Path) -> None:
    order = list(range(12))
    random.Random(0).shuffle(order)
    for value in order:
        paint(tmp_path / "again" / "abc"[value // 4] / f"{value:02}.png", value)
    first, second = (open_images(path, CONFIG, limit=6) for path in (folder, tmp_path / "again"))
    assert values(first) == values(second)


def test_a_split_has_disjoint_parts_drawn_by_the_seed_alone(folder: Path) -> None:
    images = open_images(folder, CONFIG)

    def parts(seed: int) -> list[list[int]]:
        return [values(part) for part in split(images, [7, 4], seed=seed)]

    assert parts(1) == parts(1) == [[2, 3, 4, 10, 1, 6, 0], [7, 11, 9, 8]]  # on every machine
    assert parts(2) == [[9, 5, 4, 7, 1, 10, 0], [3, 2, 6, 11]]


def test_a_split_larger_than_the_data_says_what_is_needed(folder: Path) -> None:
    with pytest.raises(DataError, match=r"13 images are needed \(10 \+ 3\), got 12") as error:
        split(open_images(folder, CONFIG), [10, 3])
    assert code_of(error) == "KD405"


# --- classes


@pytest.mark.parametrize("text", ["x\nb\na\nc\n", "c 3\na 2\nb 1\n", "\ufeffx\r\nb\r\na\r\nc\r\n\r\n"])
def test_a_class_map_numbers_by_line_or_by_the_number_on_it(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "map.txt").write_text(text, encoding="utf-8", newline="")
    images = open_images(folder, CONFIG, class_map=tmp_path / "map.txt")
    assert labels(images) == [2] * 4 + [1] * 4 + [3] * 4
    check_classes(images, outputs=4)
    with pytest.raises(DataError, match="'c' the number 3, but the net has 3") as error:
        check_classes(images, outputs=3)
    assert code_of(error) == "KD402"


def test_a_list_of_fewer_names_than_outputs_is_refused_and_a_numbered_one_is_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a\nb\nc\n")
    (tmp_path / "numbered.txt").write_text("a 0\nb 1\nc 2\n")
    with pytest.raises(DataError, match=r"names 3 classes, the net has 10 outputs") as error:
        check_classes(open_images(folder, CONFIG, class_map=tmp_path / "list.txt"), outputs=10)
    assert code_of(error) == "KD402"
    check_classes(open_images(folder, CONFIG, class_map=tmp_path / "numbered.txt"), outputs=10)
    check_classes(open_images(folder, CONFIG, class_map=tmp_path / "list.txt"), outputs=3)


def test_folders_outside_the_class_map_are_left_out_and_listed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("c\na\n")
    images = open_images(folder, CONFIG, class_map=tmp_path / "map.txt")
    assert values(images) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert images.skipped == [f"b/{value:02}.png: its folder is not in the class map" for value in range(4, 8)]


def test_a_class_map_of_other_classes_is_refused_with_both_sides_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("tench\ngoldfish\n")
    with pytest.raises(DataError, match=r"tench, goldfish; the folders are a, b, c") as error:
        open_images(folder, CONFIG, class_map=tmp_path / "map.txt")
    assert code_of(error) == "KD402"


def test_a_single_folder_is_a_class_only_with_a_class_map(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "b" / "1.png", 1)
    (tmp_path / "map.txt").write_text("a\nb\n")
    assert not open_images(tmp_path / "images", CONFIG).labeled
    assert labels(open_images(tmp_path / "images", CONFIG, class_map=tmp_path / "map.txt")) == [1]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"a\nb\na\n", b"\xff\xfe\x00"])
def test_a_class_map_that_cannot_be_used_is_named(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "map.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"map\.txt") as error:
        open_images(folder, CONFIG, class_map=tmp_path / "map.txt")
    assert code_of(error) == "KD404"


def test_the_number_of_class_folders_must_be_that_of_the_outputs(folder: Path) -> None:
    images = open_images(folder, CONFIG)
    check_classes(images, outputs=3)
    for outputs in (2, 10):
        with pytest.raises(DataError, match="--class-map") as error:
            check_classes(images, outputs)
        assert code_of(error) == "KD402"


# --- timm's datasets


class Painted(Dataset[tuple[Image.Image, int]]):
    """A dataset with the interface of torchvision's."""

    classes = ("x", "y")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (8, 8), (index,) * 3), index % 2


class Streamed(IterableDataset[tuple[Image.Image, int]]):
    """A stream with the interface of timm's; a length of 0 means unknown."""

    def __init__(self, length: int) -> None:
        self.length, self.read = length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        for index in range(10):
            self.read += 1
            yield Image.new("RGB", (8, 8), (index,) * 3), index % 2


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[str, dict[str, Any]]]]:
    """named(dataset): open this dataset under every name. Returns the list of the calls of timm's create_dataset."""

    def opens(dataset: Any) -> list[tuple[str, dict[str, Any]]]:
        calls: list[tuple[str, dict[str, Any]]] = []

        def create(name: str, **options: Any) -> Any:
            calls.append((name, options))
            return dataset

        monkeypatch.setattr(timm_datasets, "create_dataset", create)
        monkeypatch.setattr(timm_datasets, "LIBRARIES", dict.fromkeys(timm_datasets.LIBRARIES, "torch"))
        return calls

    return opens


def test_a_torchvision_dataset_has_the_limits_and_class_maps_of_a_folder(named: Any, tmp_path: Path) -> None:
    calls = named(Painted())
    images = open_images("torch/painted", CONFIG, split="train", root="somewhere")
    assert (calls[0][0], calls[0][1]["split"], calls[0][1]["root"]) == ("torch/painted", "train", "somewhere")
    assert (values(images), labels(images), dict(images.classes)) == ([*range(6)], [0, 1] * 3, {"x": 0, "y": 1})
    assert len(open_images("torch/painted", CONFIG, limit=4)) == 4
    (tmp_path / "map.txt").write_text("y\nx\n")
    assert labels(open_images("torch/painted", CONFIG, class_map=tmp_path / "map.txt")) == [1, 0] * 3


def test_a_stream_is_read_only_up_to_the_limit(named: Any) -> None:
    stream = Streamed(10)
    calls = named(stream)
    images = open_images("wds/shards", CONFIG, limit=6)
    assert calls[0][1]["root"] == "shards"
    assert values(images, batch_size=4) == [0, 1, 2, 3, 4, 5]
    assert stream.read == 6
    parts = [values(part) for part in split(images, [3, 3])]
    assert sorted(parts[0] + parts[1]) == list(range(6))
    assert parts[0] == sorted(parts[0]), "in the stream's own order"


def test_a_stream_of_unknown_length_needs_a_limit(named: Any) -> None:
    named(Streamed(0))
    with pytest.raises(DataError, match="set a limit") as error:
        open_images("wds/shards", CONFIG)
    assert code_of(error) == "KD401"
    assert values(open_images("wds/shards", CONFIG, limit=3)) == [0, 1, 2]


def test_a_missing_dataset_library_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timm_datasets, "LIBRARIES", {"hfds": "no_such_package"})
    with pytest.raises(DataError, match="pip install no-such-package") as error:
        open_images("hfds/owner/name", CONFIG)
    assert code_of(error) == "KD401"
    assert capsys.readouterr().out == ""


def test_a_dataset_that_timm_cannot_open_is_named_with_the_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"torch/cifar10: .*not found") as error:
        open_images("torch/cifar10", CONFIG, root=str(tmp_path))
    assert code_of(error) == "KD401"


# --- in memory

INPUTS = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 2, 2)
LABELS = torch.arange(7)


class Singles(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return INPUTS[index], int(LABELS[index])


@pytest.mark.parametrize(
    ("data", "labeled"),
    [
        (INPUTS, False),
        ([INPUTS[:4], INPUTS[4:]], False),
        ([(INPUTS[:4], LABELS[:4]), [INPUTS[4:], LABELS[4:]]], True),
        (DataLoader(TensorDataset(INPUTS, LABELS), 3), True),
        (TensorDataset(INPUTS), False),
        (Singles(), True),
    ],
)
def test_tensors_datasets_and_batches_are_data_too(data: Any, labeled: bool) -> None:
    for read in (batches(data, 3), batches(as_images(data), 3)):
        inputs, labels = zip(*read, strict=True)
        assert torch.equal(torch.cat(inputs), INPUTS)
        assert (torch.cat(labels).tolist() == LABELS.tolist()) if labeled else set(labels) == {None}
    assert as_images(data).labeled is labeled
    assert len(as_images(data, limit=5)) == 5


def test_batches_are_kept_only_up_to_the_limit() -> None:
    def endless() -> Iterator[Tensor]:
        while True:
            yield INPUTS

    assert len(as_images(endless(), limit=10)) == 10


def test_an_iterator_that_was_read_can_be_split_and_read_again() -> None:
    first, second = split(as_images(iter([INPUTS])), [4, 3])
    means = [float(x.mean()) for part in (first, second, first) for inputs, _ in batches(part) for x in inputs]
    assert sorted(means[:7]) == list(range(7))
    assert means[7:] == means[:4]


@pytest.mark.parametrize(
    "data", [[torch.zeros(2, 3, dtype=torch.uint8)], ["images"], torch.zeros(2, dtype=torch.int64)]
)
def test_data_that_is_not_floating_point_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match="floating-point") as error:
        list(batches(data))
    assert code_of(error) == "KD406"


def test_an_exhausted_iterator_is_an_error() -> None:
    data = iter([INPUTS])
    assert sum(len(inputs) for inputs, _ in batches(data)) == 7
    with pytest.raises(DataError, match="only once"):
        list(batches(data))
