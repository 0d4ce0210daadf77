"""Training straight from a stream: what a batch holds depends neither on the processes and workers nor on the start."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from support.pictures import picture
from support.shards import UNEVEN, huggingface, tear, webdataset
from torch import Tensor

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Images, TrainBatch, Views, open_images, train_loader
from kdna_convert.inputs.data.lanes import Lanes, counts_of
from kdna_convert.inputs.data.stream_views import StreamBatches
from kdna_convert.inputs.data.streams import Stream

CONFIG = DataConfig((3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
COUNT, BATCH = sum(UNEVEN), 10


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Sixty images, painted 0, 4, 8 ..., in five shards of different lengths."""
    return webdataset(tmp_path / "shards", [picture(4 * value) for value in range(COUNT)], UNEVEN)


def batches(
    images: Images,
    count: int,
    *,
    begin: int = 0,
    part: tuple[int, int] = (0, 1),
    workers: int = 0,
    augment: bool = True,
) -> list[TrainBatch]:
    """One part of the batches."""
    views = Views(images, CONFIG, 0, augment)
    source = images.source
    assert isinstance(source, Stream)
    shards = [source.place(position)[0] for position in images.positions]
    lanes = Lanes(counts_of(shards, len(source.ends)), BATCH, 0, 20)
    loader = StreamBatches(views, lanes, begin, part, workers)
    try:
        return list(islice(loader, count))
    finally:
        loader.end()


def inputs(found: list[TrainBatch]) -> Tensor:
    return torch.stack([batch.inputs for batch in found])


def painted(found: list[TrainBatch]) -> list[int]:
    return [round(float(image.mean()) * 255) // 4 for batch in found for image in batch.inputs]


def test_an_epoch_has_every_image_once_in_another_order(data: str) -> None:
    found = painted(batches(open_images(data, CONFIG), 12, augment=False))
    assert sorted(found[:COUNT]) == sorted(found[COUNT:]) == list(range(COUNT))
    assert found[:COUNT] != found[COUNT:]
    labels = [batch.labels for batch in batches(open_images(data, CONFIG), 6) if batch.labels is not None]
    assert Counter(torch.cat(labels).tolist()) == {0: 20, 1: 20, 2: 20}


@pytest.mark.parametrize("parts", [2, 5, 10])
def test_the_parts_of_several_processes_are_the_batches_of_one(data: str, parts: int) -> None:
    whole = inputs(batches(open_images(data, CONFIG), 9))
    each = [inputs(batches(open_images(data, CONFIG), 9, part=(part, parts))) for part in range(parts)]
    assert torch.equal(torch.cat(each, dim=1), whole)


def test_workers_give_the_same_batches(data: str) -> None:
    whole = inputs(batches(open_images(data, CONFIG), 9))
    assert torch.equal(inputs(batches(open_images(data, CONFIG), 9, workers=2)), whole)


def test_parquet_files_give_the_same_batches_to_workers_and_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = huggingface(tmp_path / "repository", [picture(4 * value) for value in range(COUNT)], "hfids")
    images = open_images(f"{data}|{COUNT}", CONFIG)
    whole = batches(images, 6, augment=False)
    assert sorted(painted(whole)) == list(range(COUNT))
    assert torch.equal(inputs(batches(images, 6, augment=False, workers=2)), inputs(whole))
    each = [inputs(batches(images, 6, augment=False, part=(part, 2))) for part in range(2)]
    assert torch.equal(torch.cat(each, dim=1), inputs(whole))


def test_a_run_begins_at_any_batch(data: str) -> None:
    whole = inputs(batches(open_images(data, CONFIG), 14))
    for begin in (1, 5, 6, 13):
        assert torch.equal(inputs(batches(open_images(data, CONFIG), 14 - begin, begin=begin)), whole[begin:])


def test_a_process_opens_the_shards_of_its_own_slots_only(data: str) -> None:
    opened: list[set[int]] = []
    for part in range(5):
        images = open_images(data, CONFIG)
        shards = images.source.shards
        own: set[int] = set()
        opened.append(own)
        whole = shards.open
        shards.open = lambda shard, whole=whole, own=own: own.add(shard) or whole(shard)
        batches(images, 5, part=(part, 5))
    assert max(map(len, opened)) <= 3


def test_the_images_of_a_missing_shard_are_replaced_and_named(data: str, tmp_path: Path) -> None:
    (tmp_path / "shards" / "some-002.tar").unlink()
    found = batches(open_images(data, CONFIG), 6, augment=False)
    assert all(len(batch.inputs) == BATCH for batch in found)
    assert not set(painted(found)) & set(range(20, 40))
    unread = {position for batch in found for position, _ in batch.unread}
    assert unread == set(range(20, 40))
    parts = [batches(open_images(data, CONFIG), 6, augment=False, part=(part, 5)) for part in range(5)]
    assert torch.equal(torch.cat([inputs(part) for part in parts], dim=1), inputs(found))


def test_the_images_after_a_tear_are_replaced_and_named(data: str, tmp_path: Path) -> None:
    tear(tmp_path / "shards" / "some-002.tar", 512 * 4 * 5)
    found = batches(open_images(data, CONFIG), 6, augment=False)
    assert not set(painted(found)) & set(range(25, 40))
    assert set(painted(found)) >= set(range(20, 25))
    assert {position for batch in found for position, _ in batch.unread} == set(range(25, 40))


def test_an_unreadable_image_is_replaced_by_another_of_its_slot(tmp_path: Path) -> None:
    pictures = [b"no image" if value in (3, 30) else picture(4 * value) for value in range(COUNT)]
    found = batches(open_images(webdataset(tmp_path / "torn", pictures, UNEVEN), CONFIG), 6, augment=False)
    assert all(len(batch.inputs) == BATCH for batch in found)
    assert {position for batch in found for position, _ in batch.unread} == {3, 30}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_strict_stream_stops_a_training(data: str, tmp_path: Path, workers: int) -> None:
    (tmp_path / "shards" / "some-002.tar").unlink()
    with pytest.raises(DataError, match="KD420: the shard some-002"):
        batches(open_images(f"{data}|strict", CONFIG), 6, workers=workers)


def test_a_stream_without_a_readable_image_is_refused(data: str, tmp_path: Path) -> None:
    images = open_images(data, CONFIG)
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    with pytest.raises(DataError, match="KD401"):
        batches(images, 1)


def test_the_first_batch_is_read_without_filling_a_buffer(data: str) -> None:
    images = open_images(data, CONFIG)
    batch = next(iter(train_loader(Views(images, CONFIG, 0, True), BATCH, 0)))
    assert batch.inputs.shape == (BATCH, 3, 8, 8)
    assert batch.labels is not None
