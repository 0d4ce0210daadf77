"""Images: a selection from a source, its disjoint parts, and the batches it is read in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from .sources import Classes, Files, Sample, Source, Stream, UnreadableImageError

Batch = tuple[Tensor, Tensor | None]
_Read = tuple[int, Sample | UnreadableImageError]


class Images:
    """Some images of a source, in a fixed order. Parts of the same images share one list of what could not be read."""

    def __init__(self, source: Source | Stream, positions: Sequence[int], skipped: dict[str, str]) -> None:
        self.source = source
        self.positions = list(positions)
        self._skipped = skipped

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def labelled(self) -> bool:
        return self.source.labelled

    @property
    def classes(self) -> Classes:
        """The label of each class name; empty where names are not known."""
        return self.source.classes

    @property
    def mapped(self) -> bool:
        """Whether a class map, rather than the order of the folders, numbers the classes."""
        return self.source.mapped

    @property
    def skipped(self) -> list[str]:
        """`name: reason` of every image passed over so far; a damaged one is found when it is first read."""
        return [f"{name}: {reason}" for name, reason in self._skipped.items()]

    def skip(self, position: int, reason: str) -> None:
        self._skipped[self.source.name(position)] = reason

    def part(self, order: Iterable[int]) -> Images:
        """The images at these places of this selection."""
        return Images(self.source, [self.positions[place] for place in order], self._skipped)

    def without(self, other: Images) -> Images:
        """All but those that are in another part of the same source."""
        taken = set(other.positions)
        return self.part(place for place, position in enumerate(self.positions) if position not in taken)

    def draw(self, limit: int | None, seed: int) -> Images:
        """`limit` of them at random, all classes mixed (the whole where there are no more); of a stream, the first."""
        if limit is None or limit >= len(self):
            return self
        if isinstance(self.source, Stream):
            return self.part(range(limit))
        return self.part(shuffled(len(self), seed)[:limit])


def split(images: Images, sizes: Sequence[int], seed: int = 0) -> list[Images]:
    """Disjoint random parts of the given sizes, the same for a seed on every machine. Raises DataError KD405."""
    if sum(sizes) > len(images):
        raise DataError("KD405", f"{sum(sizes)} images are needed ({' + '.join(map(str, sizes))}), got {len(images)}")
    order = iter(shuffled(len(images), seed))
    return [images.part(islice(order, size)) for size in sizes]


def read(images: Images, batch_size: int, workers: int) -> Iterator[Batch]:
    """float32 (B, C, H, W) with int64 labels (B,) or None, in order; a damaged image is skipped and listed.

    Raises DataError KD401 when not one can be read.
    """
    count = 0
    for rows in _rows(images, batch_size, workers):
        samples: list[Sample] = []
        for position, sample in rows:
            if isinstance(sample, UnreadableImageError):
                images.skip(position, str(sample))
            else:
                samples.append(sample)
        if samples:
            count += len(samples)
            inputs, labels = _stack(samples)
            yield images.source.finish(inputs), labels
    if not count:
        reason = f"; the first: {images.skipped[0]}" if images.skipped else ""
        raise DataError("KD401", f"none of {len(images)} images could be read{reason}")


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


def _rows(images: Images, batch_size: int, workers: int) -> Iterable[list[_Read]]:
    source, positions = images.source, images.positions
    if isinstance(source, Stream):
        return passing(source, set(positions), batch_size)
    if isinstance(source, Files):
        source.close()
    return DataLoader(
        _Selected(source, positions),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_as_list,
        generator=torch.Generator(),  # a DataLoader draws from the global one even when it does not shuffle
    )


def _as_list(rows: list[_Read]) -> list[_Read]:
    return rows


def passing(source: Stream, wanted: set[int], batch_size: int) -> Iterator[list[_Read]]:
    """The wanted images of one pass, in the stream's order; it ends with the last of them."""
    passing = islice(enumerate(source.samples()), max(wanted, default=-1) + 1)
    chosen = ((position, sample) for position, sample in passing if position in wanted)
    while rows := list(islice(chosen, batch_size)):
        yield rows


def _stack(samples: list[Sample]) -> Batch:
    labels = [label for _, label in samples if label is not None]
    tensors = torch.stack([tensor for tensor, _ in samples])
    return tensors, torch.tensor(labels) if len(labels) == len(samples) else None


def shuffled(count: int, seed: int) -> list[int]:
    """The one generator whose stream is promised never to change: the same draw with every version and machine."""
    order: list[int] = np.random.RandomState(seed).permutation(count).tolist()
    return order
