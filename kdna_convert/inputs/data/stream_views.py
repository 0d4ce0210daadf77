"""Training images straight from a stream: this process's part of every batch, in the order of lanes.py.

A part reads the shards of its own slots, and holds the encoded pictures of their windows: over all processes at most
BUFFER bytes and IMAGES images, or one batch. What a batch holds does not depend on how many processes and workers read
it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...core.errors import DataError, KdnaError
from ...core.processes import count as processes
from ...core.processes import gather, number
from .decoding import UnreadableImageError
from .images import Images
from .lanes import Lanes, LaneWindow, counts_of, part_slots
from .shards import LostShard, Record
from .streams import OpenShard, Stream, lost_reason
from .views import TrainBatch, Unread, ViewRead, Views, view_loader

BUFFER = 2**29
IMAGES = 8192
# Pictures that are read to know how large they are, of the first so many; and the most that are tried for another.
_PROBED, _TRIED = 16, 64

Held = tuple[Record | UnreadableImageError, tuple[Unread, ...]]  # a record, and the images that it replaces


def train_loader(views: Views, batch_size: int, seed: int, *, begin: int = 0, workers: int = 0) -> Iterable[TrainBatch]:
    """Endless batches from batch `begin`. `workers` processes decode, where images are decoded at every read.

    Of a stream, images are shuffled within a batch only: use it for the first few batches.
    """
    if isinstance(views.source, Stream):
        return StreamBatches(views, _lanes(views, batch_size, seed, batch_size), begin, (0, 1), workers)
    return view_loader(views, batch_size, seed, begin=begin, workers=workers)


def shared_loader(
    views: Views, batch_size: int, seed: int, *, begin: int, workers: int, divide: Callable[[Any], Any]
) -> Any:
    """As train_loader, but this process's part of every batch. All processes must call it. `end()` closes it.

    `divide` gives each process its part of the batches of a DataLoader, which a stream does not need.
    """
    if isinstance(views.source, Stream):
        size = max(gather(_picture_bytes(views.source, views.images.positions)))
        lanes = _lanes(views, batch_size, seed, max(batch_size, min(IMAGES, BUFFER // size)))
        return StreamBatches(views, lanes, begin, (number(), processes()), workers)
    return divide(view_loader(views, batch_size, seed, begin=begin, workers=workers))


class StreamBatches:
    """One process's part of every batch, endless. `place` is the number of the next batch.

    Attributes:
        part: Which part of how many.
    """

    def __init__(self, views: Views, lanes: Lanes, begin: int, part: tuple[int, int], workers: int) -> None:
        self.views, self.workers, self.place = views, workers, begin
        self._dataset = _StreamPart(views, lanes, begin, part)
        self._running: Iterator[TrainBatch] | None = None

    def __iter__(self) -> Iterator[TrainBatch]:
        """The batches from `place` on; a second iterator continues the first."""
        if self._running is None:
            self._running = self._batches()
        return self._running

    def end(self) -> None:
        """Close the shards and end the workers."""
        close = getattr(self._running, "close", None)
        if close is not None:
            close()
        self._running = None

    def _batches(self) -> Iterator[TrainBatch]:
        parts = iter(
            DataLoader(
                self._dataset,
                batch_size=None,
                num_workers=self.workers,
                collate_fn=_as_it_is,
                worker_init_fn=_leave_ctrl_c,
                generator=torch.Generator(),  # a DataLoader draws from the global generator even without shuffling
            )
        )
        while True:  # the workers take turns, and each has its part of one batch
            found = list(islice(parts, max(1, self.workers)))
            for part in found:
                if isinstance(part, KdnaError):
                    raise part
            self.place += 1
            yield self.views.collate([read for part in found for read in part])


class _StreamPart(IterableDataset[Any]):
    """The reads of every batch that belong to one process; in a worker, its part of them. An error is the last item."""

    def __init__(self, views: Views, lanes: Lanes, begin: int, part: tuple[int, int]) -> None:
        self.views, self.lanes, self.begin, self.part = views, lanes, begin, part
        self.places = _Places(views.images)

    def __iter__(self) -> Iterator[list[ViewRead] | KdnaError]:
        info, (part, parts) = get_worker_info(), self.part
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        slots = part_slots(self.lanes.batch_size, part * workers + worker, parts * workers)
        own = self.lanes.slots
        readers = {
            lane: _LaneReader(
                self.views, self.places, self.lanes, lane, {slot % own for slot in slots if slot // own == lane}
            )
            for lane in sorted({slot // own for slot in slots})
        }
        try:
            for batch in count(self.begin):
                first = batch * self.lanes.batch_size
                turns = [(slot, *divmod(slot, own)) for slot in slots]
                yield [readers[lane].view(first + slot, batch * own + turn) for slot, lane, turn in turns]
        except KdnaError as error:
            yield error
        finally:
            for reader in readers.values():
                reader.close()


class _LaneReader:
    """The images of some slots of a lane. It holds those of one window."""

    def __init__(self, views: Views, places: _Places, lanes: Lanes, lane: int, slots: set[int]) -> None:
        self.views, self.places, self.lanes, self.lane, self.slots = views, places, lanes, lane, slots
        self.window: LaneWindow | None = None
        self.images: list[tuple[int, int]] = []  # of the window
        self.held: dict[int, Held] = {}
        self.own = self.other = OpenShard(places.stream)
        self.lost: dict[int, LostShard] = {}

    def view(self, stream_position: int, turn: int) -> ViewRead:
        """The view of the lane's image number `turn`. An unreadable one is replaced by the next of its slot.

        Raises DataError KD401 where there is none, KD420 for a lost shard of a strict stream.
        """
        window = self.lanes.window_at(self.lane, turn)
        if window != self.window:
            self._fill(window)
        unread: list[Unread] = []
        for position, (record, replaced) in self._candidates(turn):
            unread += replaced
            try:
                if isinstance(record, UnreadableImageError):
                    raise record
                return stream_position, self.views.view_of(record, stream_position), tuple(unread)
            except UnreadableImageError as error:
                unread.append((position, lost_reason(error)))
        raise DataError("KD401", f"none of {len(unread)} images in a row can be read; the last: {unread[-1][1]}")

    def _candidates(self, turn: int) -> Iterator[tuple[int, Held]]:
        """An image, and what may replace it: others of its slot and window, next ones of its shard, other shards'."""
        yield self._position_at(turn), self.held[turn]
        own = sorted(each for each in self.held if each % self.lanes.slots == turn % self.lanes.slots)
        for each in (*(each for each in own if each > turn), *(each for each in own if each < turn)):
            yield self._position_at(each), self.held[each]
        shard, place = self._image_at(turn)
        epoch, counts = turn // self.lanes.length, self.lanes.counts
        near = [(shard, place + step) for step in range(1, min(_TRIED, counts[shard] - place))]
        for other in [*near, *((other, place % counts[other]) for other in self.lanes.after(shard, epoch))]:
            yield self.places.position(*other), (self._read(self.other, *other), ())

    def close(self) -> None:
        self.own.close()
        self.other.close()

    def _fill(self, window: LaneWindow) -> None:
        """Read the window's images of these slots, in the order of the shards."""
        if self.window is None or self.window.epoch != window.epoch:
            self.close()  # a shard that was lost is tried again
            self.lost, self.own, self.other = {}, OpenShard(self.places.stream), OpenShard(self.places.stream)
        self.window, self.held = window, {}
        first = window.epoch * self.lanes.length + window.begin
        self.images = self.lanes.images(window)
        turns = [first + own for own in range(len(self.images)) if (first + own) % self.lanes.slots in self.slots]
        ranks = {shard: self.lanes.rank(shard, window.epoch) for shard, _ in self.images}
        for turn in sorted(turns, key=lambda turn: (ranks[self.images[turn - first][0]], self.images[turn - first][1])):
            self.held[turn] = self._record(*self.images[turn - first], window.epoch)

    def _record(self, shard: int, place: int, epoch: int) -> Held:
        """An image, or for one of a lost shard the image at that place of the next shard."""
        record = self._read(self.own, shard, place)
        if not isinstance(record, UnreadableImageError) or shard not in self.lost:
            return record, ()
        unread = ((self.places.position(shard, place), self.lost[shard]),)
        for other in self.lanes.after(shard, epoch):
            found = self._read(self.other, other, place % self.lanes.counts[other])
            if not isinstance(found, UnreadableImageError):
                return found, unread
        return record, ()

    def _read(self, opened: OpenShard, shard: int, place: int) -> Record | UnreadableImageError:
        if shard in self.lost:
            return UnreadableImageError(self.lost[shard])
        record = opened.read(self.places.position(shard, place))
        reason = lost_reason(record) if isinstance(record, UnreadableImageError) else ""
        if isinstance(reason, LostShard):
            self.lost[shard] = reason
        return record

    def _image_at(self, turn: int) -> tuple[int, int]:
        window = self.window
        first = 0 if window is None else window.epoch * self.lanes.length + window.begin
        return self.images[turn - first]

    def _position_at(self, turn: int) -> int:
        return self.places.position(*self._image_at(turn))


class _Places:
    """The positions of the training images, by shard and number in it."""

    def __init__(self, images: Images) -> None:
        if not isinstance(images.source, Stream):
            raise TypeError(f"places in a stream, not in {type(images.source).__name__}")
        self.stream = images.source
        self.positions = np.sort(np.asarray(images.positions, np.int64))
        self.starts = np.searchsorted(self.positions, np.concatenate([[0], self.stream.ends]))

    def position(self, shard: int, place: int) -> int:
        return int(self.positions[self.starts[shard] + place])


def _lanes(views: Views, batch_size: int, seed: int, buffer: int) -> Lanes:
    stream: Any = views.source
    shards = np.searchsorted(np.asarray(stream.ends), np.asarray(views.images.positions), side="right")
    return Lanes(counts_of(shards, len(stream.ends)), batch_size, seed, buffer)


def _picture_bytes(stream: Stream, positions: Sequence[int]) -> int:
    """The mean bytes of the first encoded pictures of the shards, at least 1."""
    places = sorted(positions[place] for place in stream.spread(positions, 0)[:_TRIED])
    records = (record for _, record in stream.read(places) if not isinstance(record, UnreadableImageError))
    sizes = [_bytes_of(picture) for picture, _ in islice(records, _PROBED)]
    return max(1, sum(sizes) // max(1, len(sizes)))


def _bytes_of(picture: Any) -> int:
    if isinstance(picture, bytes):
        return len(picture)
    width, height = getattr(picture, "size", (1, 1))
    return int(width * height * 4)


def _leave_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the trainer stops after its step, for which it needs the workers.

    SIGTERM still ends a worker: the DataLoader needs that for one that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(item: Any) -> Any:
    return item
