"""Training images: the order and the views depend on a seed and a position; unreadable images are replaced."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig
from kdna_convert.inputs.data import Views, as_images, open_images, train_loader
from kdna_convert.inputs.data.views import Order

SMALL = DataConfig(input_size=(3, 16, 16), crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
LARGE = DataConfig(input_size=(3, 96, 96), crop_pct=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)


def drawn(
    folder: Path, config: DataConfig, count: int = 3, *, begin: int = 0, seed: int = 0, workers: int = 0
) -> Tensor:
    views = Views(open_images(folder, config), config, seed, True)
    loader = train_loader(views, 8, seed, begin=begin, workers=workers)
    return torch.stack([batch.inputs for batch in islice(loader, count)])


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    places = [place for keys in islice(Order(10, 4, 0, 0), 10) for _, place in keys]
    epochs = [places[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_order_can_start_in_the_middle() -> None:
    assert list(islice(Order(10, 4, 3, 0), 5, 9)) == list(islice(Order(10, 4, 3, 5), 4))


@pytest.mark.parametrize("config", [SMALL, LARGE], ids=["small", "large"])
def test_the_position_in_the_run_decides_the_view(images: Path, config: DataConfig) -> None:
    whole = drawn(images, config)
    assert torch.equal(drawn(images, config, 2, begin=1), whole[1:])
    assert torch.equal(drawn(images, config, workers=2), whole)
    assert not torch.equal(drawn(images, config, seed=1), whole)
    again = drawn(images, config, 1, begin=60)  # the first images of another epoch, in other views
    assert not torch.equal(again[0], whole[0])


def test_another_seed_draws_other_views_of_the_same_images(images: Path) -> None:
    opened = open_images(images, SMALL)
    one, other = ([Views(opened, SMALL, seed, True)[key, 0][1][0] for key in range(8)] for seed in (0, 1))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_views_neither_use_nor_change_the_global_generator(images: Path) -> None:
    torch.manual_seed(0)
    whole, after = drawn(images, SMALL), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(drawn(images, SMALL), whole)


def test_small_images_are_decoded_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_images(images, SMALL)
    read: list[int] = []
    true = opened.source.sample
    monkeypatch.setattr(opened.source, "sample", lambda position: read.append(position) or true(position))
    list(islice(train_loader(Views(opened, SMALL, 0, True), 20, 0), 9))
    assert sorted(read) == list(range(60))


def test_without_augmentation_an_image_is_that_of_the_evaluation(images: Path) -> None:
    opened = open_images(images, SMALL)
    views = Views(opened, SMALL, 0, False)
    place, (inputs, label), unread = views[(0, 7)]
    assert place == 0
    assert unread == ()
    assert torch.equal(inputs, opened.source.sample(7)[0])
    assert label == opened.source.sample(7)[1]


def test_mixup_pairs_images_of_a_batch_by_position_and_seed() -> None:
    data = torch.randn(8, 3, 4, 4, dtype=torch.float64)

    def first(seed: int, mixup: float) -> torch.Tensor:
        return next(iter(train_loader(Views(as_images(data), SMALL, seed, True, mixup), 8, 0))).inputs

    plain, mixed = first(0, 0.0), first(0, 1.0)
    assert torch.equal(mixed, first(0, 1.0))
    assert not torch.equal(mixed, first(1, 1.0))
    partner = plain.roll(1, 0)
    apart = (plain - partner).flatten(1)
    share = ((mixed - partner).flatten(1) * apart).sum(1) / apart.square().sum(1)
    assert ((share > 0) & (share < 1)).all()
    assert len(share.unique()) == len(share)  # each image by a draw of its own
    share = share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed, share * plain + (1 - share) * partner)


def test_tensors_are_taken_as_they_are() -> None:
    data = torch.randn(8, 3, 16, 16)
    batch = next(iter(train_loader(Views(as_images(data), SMALL, 0, True), 8, 0)))
    assert torch.equal(batch.inputs.flatten(1).sort(0).values, data.flatten(1).sort(0).values)
    assert batch.labels is None


def damaged(folder: Path, count: int, broken: int) -> Path:
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(path)
        if number < broken:
            path.write_bytes(path.read_bytes()[:30])
    return folder


def test_an_unreadable_image_is_replaced_by_the_next(tmp_path: Path) -> None:
    views = Views(open_images(damaged(tmp_path, 6, 2), SMALL), SMALL, 0, True)
    batches = list(islice(train_loader(views, 6, 0), 2))
    assert [len(batch.inputs) for batch in batches] == [6, 6]
    assert {position for batch in batches for position, _ in batch.unread} == {0, 1}


def test_a_data_set_without_readable_images_is_refused(tmp_path: Path) -> None:
    views = Views(open_images(damaged(tmp_path, 3, 3), SMALL), SMALL, 0, True)
    with pytest.raises(DataError, match=r"KD401: none of 3 images"):
        next(iter(train_loader(views, 2, 0)))
