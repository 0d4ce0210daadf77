"""The order of a stream's training images: a function of the place, in which every epoch has every image once."""

from __future__ import annotations

import pytest

from kdna_convert.inputs.data.lanes import Lanes, counts_of, part_slots

COUNTS = (13, 7, 0, 20, 11, 9)


def drawn(lanes: Lanes, lane: int, turns: int) -> list[tuple[int, int]]:
    """The images of a lane, in their order."""
    found = []
    for turn in range(turns):
        window = lanes.window_at(lane, turn)
        begin = window.epoch * lanes.length + window.begin
        found.append(lanes.images(window)[turn - begin])
    return found


@pytest.mark.parametrize(("batch", "buffer"), [(8, 16), (6, 1000), (7, 7), (64, 64), (5, 23)])
def test_an_epoch_has_every_image_at_most_once_and_nearly_all(batch: int, buffer: int) -> None:
    lanes = Lanes(COUNTS, batch, 0, buffer)
    assert batch % lanes.count == 0
    assert lanes.count <= 5
    epochs = [[drawn(lanes, lane, 2 * lanes.length) for lane in range(lanes.count)]]
    for epoch in range(2):
        once = [image for lane in epochs[0] for image in lane[epoch * lanes.length : (epoch + 1) * lanes.length]]
        assert len(set(once)) == len(once) > sum(COUNTS) - lanes.count
        assert all(place < COUNTS[shard] for shard, place in once)
    assert epochs[0][0][: lanes.length] != epochs[0][0][lanes.length :]


def test_images_of_a_window_are_shuffled_and_windows_do_not_begin_together() -> None:
    lanes = Lanes((1000,) * 8, 8, 0, 800)
    assert (lanes.count, lanes.window, lanes.length) == (8, 100, 1000)
    begins = {lanes.window_at(lane, 500).begin for lane in range(8)}
    assert len(begins) == 8
    window = lanes.window_at(0, 500)
    own = lanes.images(window)
    assert own != sorted(own)
    assert {shard for shard, _ in own} == {own[0][0]}
    assert lanes.images(window) == own
    assert Lanes((1000,) * 8, 8, 1, 800).images(window) != own


def test_parts_divide_the_slots_of_a_batch() -> None:
    for batch, parts in ((8, 2), (9, 4), (3, 8)):
        slots = [slot for part in range(parts) for slot in part_slots(batch, part, parts)]
        assert slots == list(range(batch))


def test_other_shards_stand_in_for_a_lost_one_in_the_order_of_the_epoch() -> None:
    lanes = Lanes(COUNTS, 8, 0, 16)
    for shard in (0, 1, 3):
        others = lanes.after(shard, 2)
        assert sorted([*others, shard]) == [0, 1, 3, 4, 5]


def test_the_images_of_each_shard_are_counted() -> None:
    assert counts_of([0, 2, 2, 0, 2], 4) == (2, 0, 3, 0)
