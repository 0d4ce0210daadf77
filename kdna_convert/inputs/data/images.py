"""Images: a selection from a source, its disjoint parts, and its batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...core.errors import DataError
from ...core.processes import gather
from .decoding import UnreadableImageError
from .packing import Packing
from .shards import LostShard, Record
from .sources import Classes, FolderSource, Label, Sample, Source
from .streams import Stream, lost_reason

Batch = tuple[Tensor, Tensor | None]
_Read = tuple[int, Sample | UnreadableImageError]


class Images:
    """Some images of a source, in a fixed order. Parts of the same images share one list of unreadable images."""

    def __init__(self, source: Source | Stream, positions: Sequence[int], skipped: dict[str, str]) -> None:
        self.source = source
        self.positions = list(positions)
        self._skipped = skipped

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labeled(self) -> bool:
        return self.source.labeled

    @property
    def classes(self) -> Classes:
        """The label of each class name; empty where the names are unknown."""
        return self.source.classes

    @property
    def mapped(self) -> bool:
        """Whether a class map numbers the classes, rather than the order of the folders."""
        return self.source.mapped

    @property
    def packing(self) -> Packing | None:
        """How several inputs of a sample lie in one tensor; None for a single input."""
        return getattr(self.source, "packing", None)

    @property
    def skipped(self) -> list[str]:
        """`name: reason` of every image skipped so far. A damaged image is skipped when it is first read.

        The images of a lost shard are one entry, with their number.
        """
        alone = [f"{name}: {reason}" for name, reason in self._skipped.items() if not isinstance(reason, LostShard)]
        lost = Counter(reason for reason in self._skipped.values() if isinstance(reason, LostShard))
        return alone + [f"{reason} ({count:,} image{'s' * (count > 1)})" for reason, count in lost.items()]

    @property
    def read(self) -> list[str]:
        """The names of the images that a whole pass could read, in its order, once it is over."""
        positions = sorted(self.positions) if isinstance(self.source, Stream) else self.positions
        return [name for name in map(self.source.name, positions) if name not in self._skipped]

    @property
    def enlarged(self) -> int:
        """How many of the source's images, read so far in this process, were smaller than the net's input."""
        return getattr(getattr(self.source, "decode", None), "enlarged", 0)

    def skip(self, position: int, reason: str) -> None:
        self._skipped[self.source.name(position)] = reason

    def gather_skipped(self) -> None:
        """Add the images that other processes of this pass skipped."""
        for skipped in gather(self._skipped):
            self._skipped.update(skipped)

    def part(self, order: Iterable[int]) -> Images:
        """The images at these positions of this selection."""
        return Images(self.source, [self.positions[place] for place in order], self._skipped)

    def without(self, other: Images) -> Images:
        """All images except those of another part of the same source."""
        taken = set(other.positions)
        return self.part(place for place, position in enumerate(self.positions) if position not in taken)

    def draw(self, limit: int | None, seed: int) -> Images:
        """At most `limit` of the images, drawn at random; of a stream, the first."""
        if limit is None or limit >= len(self):
            return self
        if isinstance(self.source, Stream):
            return self.part(range(limit))
        return self.part(shuffled(len(self), seed)[:limit])

    def order(self, seed: int) -> list[int]:
        """A random order, in which parts are drawn. That of a stream takes the beginnings of its shards first."""
        if isinstance(self.source, Stream):
            return self.source.spread(self.positions, seed)
        return shuffled(len(self), seed)


def split(images: Images, sizes: Sequence[int], seed: int = 0) -> list[Images]:
    """Disjoint random parts of the given sizes, equal for a seed on every machine. Raises DataError KD405."""
    if sum(sizes) > len(images):
        raise DataError(
            "KD405",
            f"{sum(sizes)} images are needed ({' + '.join(map(str, sizes))}), got {len(images)}; pass more images",
        )
    order = iter(images.order(seed))
    return [images.part(islice(order, size)) for size in sizes]


@dataclass(frozen=True)
class Reading:
    """Batches of inputs (B, C, H, W), float32, with labels, int64, (B,) or (B, length), or None. Each pass reads anew.

    A damaged image is skipped and listed. A pass raises DataError KD401 when no image can be read.
    """

    images: Images
    batch_size: int
    workers: int = 0

    def __length_hint__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (batch for _, batch in self.dealt(0, 1))

    def dealt(self, first: int, step: int) -> Iterator[tuple[int, Batch]]:
        """The share number `first` of `step` shares of the batches, each with its number. The others are not read.

        It is every `step`-th batch, and of a stream `step`-th part of the batches in a row, so that a share reads few
        shards. Only a whole pass, of step 1, raises when it is empty.
        """
        images, count = self.images, 0
        for number, rows in _rows(images, self.batch_size, self.workers, first, step):
            samples: list[Sample] = []
            for position, sample in rows:
                if isinstance(sample, UnreadableImageError):
                    images.skip(position, lost_reason(sample))
                else:
                    samples.append(sample)
            if samples:
                count += len(samples)
                inputs, labels = _stack(samples)
                yield number, (images.source.finish(inputs), labels)
        if not count and step == 1:
            reason = f"; the first: {images.skipped[0]}" if images.skipped else ""
            raise DataError("KD401", f"none of {len(images)} images can be read{reason}")


@dataclass(frozen=True)
class Inputs:
    """The inputs of a reading without their labels, each batch as `change(inputs, number)` returns it."""

    reading: Reading
    change: Callable[[Tensor, str], Tensor] | None = None

    def __length_hint__(self) -> int:
        return self.reading.__length_hint__()

    def __iter__(self) -> Iterator[Tensor]:
        return (inputs for _, inputs in self.dealt(0, 1))

    def dealt(self, first: int, step: int) -> Iterator[tuple[int, Tensor]]:
        """See Reading.dealt."""
        for number, (inputs, _) in self.reading.dealt(first, step):
            yield number, inputs if self.change is None else self.change(inputs, str(number))


class _Selected(Dataset[_Read]):
    def __init__(self, source: Source, positions: list[int]) -> None:
        self.source, self.positions = source, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, place: int) -> _Read:
        position = self.positions[place]
        try:
            return position, self.source.sample(position)
        except UnreadableImageError as error:
            return position, error


def _rows(images: Images, batch_size: int, workers: int, first: int, step: int) -> Iterator[tuple[int, list[_Read]]]:
    """The share of the batches that Reading.dealt says, with their numbers."""
    source, positions = images.source, images.positions
    if isinstance(source, Stream):
        return _stream_rows(source, sorted(positions), batch_size, first, step)
    if isinstance(source, FolderSource):
        source.close()
    places = list(range(len(positions)))
    starts = places[first * batch_size :: step * batch_size]
    loader = DataLoader(
        _Selected(source, positions),
        batch_sampler=[places[start : start + batch_size] for start in starts],
        num_workers=workers,
        collate_fn=_as_list,
        generator=torch.Generator(),  # a DataLoader draws from the global generator even without shuffling
    )
    return ((start // batch_size, rows) for start, rows in zip(starts, loader, strict=True))


def _as_list(rows: list[_Read]) -> list[_Read]:
    return rows


def _stream_rows(
    stream: Stream, positions: Sequence[int], batch_size: int, first: int, step: int
) -> Iterator[tuple[int, list[_Read]]]:
    """The batches of a share, in a row. Each is decoded in this process."""
    count = -(-len(positions) // batch_size)
    begin, end = (share * count // step for share in (first, first + 1))
    records = stream.read(positions[begin * batch_size : end * batch_size])
    for number in range(begin, end):
        yield number, [(position, _decoded(stream, record)) for position, record in islice(records, batch_size)]


def _decoded(stream: Stream, record: Record | UnreadableImageError) -> Sample | UnreadableImageError:
    if isinstance(record, UnreadableImageError):
        return record
    try:
        return stream.decoded(record)
    except UnreadableImageError as error:
        return error


def _stack(samples: list[Sample]) -> Batch:
    inputs = torch.cat([*same_shape([tensor[None] for tensor, _ in samples])])
    return inputs, stack_labels([label for _, label in samples])


def stack_labels(labels: Sequence[Label | None]) -> Tensor | None:
    """The labels of a batch, None where one is missing. Raises DataError KD403 as concat_labels does."""
    present = [torch.as_tensor(label)[None] for label in labels if label is not None]
    return concat_labels(present) if len(present) == len(labels) else None


def concat_labels(batches: Sequence[Tensor]) -> Tensor:
    """Labels (B,) or rows of labels (B, length). Raises DataError KD403 for rows of different lengths."""
    if len({labels.shape[1:] for labels in batches}) > 1:
        raise DataError("KD403", "rows of labels must have one length; pad them at the end with -1")
    return torch.cat(list(batches))


def shuffled(count: int, seed: int) -> list[int]:
    """A random order, the same for a seed in every version and on every machine: NumPy freezes this generator."""
    order: list[int] = np.random.RandomState(seed).permutation(count).tolist()
    return order


def same_shape(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Tensors of one shape, apart from the first axis. Raises DataError KD406 for others."""
    shapes = [tuple(each.shape[1:]) for each in inputs]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other is not None:
        raise DataError("KD406", f"DATA gives inputs of shapes {shapes[0]} and {other}; all must have one shape")
    return inputs
