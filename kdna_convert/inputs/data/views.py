"""Training images: an endless stream of randomly augmented views.

Every draw depends on the seed and the position in the stream only: position p of the stream with seed s is the same
image in the same view in every run, in any process, from any starting point. So a stopped run can be resumed exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from ...core.errors import DataError
from ...core.specs import DataConfig, product
from .cropping import FULL_SIZE
from .decoding import Decoder, UnreadableImageError
from .images import Images, shuffled, stack_labels
from .mixing import mixer, seeded
from .shards import Record
from .sources import Sample, Source
from .streams import Stream

# Up to this side, in pixels, an image is decoded once and shifted within a border of an eighth, as is usual for CIFAR.
# A larger one is decoded for every view, so that the crop uses all of its pixels.
SMALL = 64
# The limit for decoded images in memory, in bytes.
MEMORY = 2**30
CROP_SCALE = (0.35, 1.0)  # of a large image's area

Key = tuple[int, int]  # the position in the stream, which decides the view, and the position among the images
Unread = tuple[int, str]
# the position in the stream, a view, and the images it replaces
ViewRead = tuple[int, Sample, tuple[Unread, ...]]


@dataclass(frozen=True)
class TrainBatch:
    """Inputs (B, ...) as the net takes them, labels (B,) or (B, length) where all have one, and unreadable images."""

    inputs: Tensor
    labels: Tensor | None
    unread: tuple[Unread, ...]


class Order:
    """An endless batch sampler from batch `begin`: all images in a random order, then all in another."""

    drop_last = True
    sampler = None

    def __init__(self, images: int, batch_size: int, seed: int, begin: int) -> None:
        self.images, self.batch_size, self.seed, self.begin = images, batch_size, seed, begin

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, []
        for batch in count(self.begin):
            keys = []
            for place in range(batch * self.batch_size, (batch + 1) * self.batch_size):
                if place // self.images != epoch:
                    epoch = place // self.images
                    order = shuffled(self.images, (self.seed + 7919 * epoch) % 2**32)
                keys.append((place, order[place % self.images]))
            yield keys


class Views(Dataset[ViewRead]):
    """Random views of the images of a folder or a named dataset. Tensors and a torch Dataset are not augmented.

    An unreadable image is replaced by the next one, so that every batch is full. With `mixup`, the inputs of a batch
    are mixed in pairs by Beta(mixup, mixup); the label is that of the first image. stream_views.py reads streams.
    """

    def __init__(self, images: Images, config: DataConfig | None, seed: int, augment: bool, mixup: float = 0.0) -> None:
        decodable = config is not None and hasattr(images.source, "decode")
        size = config.input_size if config is not None else ()
        cut = config is not None and config.crop_mode in FULL_SIZE
        small = decodable and not cut and max(size[1:]) <= SMALL
        self.images, self.seed = images, seed
        self.source: Source | Stream = images.source
        self.decoded: dict[int, Sample] | None = None
        self.view: Callable[[Tensor], Tensor] = _identity
        self.mix = mixer(mixup)
        if not isinstance(self.source, Stream) and small and len(images) * product(size) <= MEMORY:
            self.decoded = {}
        if decodable and config is not None and augment:
            if small:
                self.view = _shifted(size)
            else:
                self.source = copy.copy(self.source)
                setattr(self.source, "decode", _Cropping(config))  # noqa: B010 - of sources of pictures alone

    @property
    def streamed(self) -> bool:
        """Whether the images come from a stream, in an order of its own (lanes.py)."""
        return isinstance(self.source, Stream)

    @property
    def decodes(self) -> bool:
        """Whether every read decodes an image, so that worker processes help."""
        return self.decoded is None and hasattr(self.source, "decode")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> ViewRead:
        stream_position, place = key
        unread: list[Unread] = []
        with seeded(f"{self.seed} {stream_position}"):
            while len(unread) < len(self):
                position = self.images.positions[place]
                try:
                    inputs, label = self._sample(position)
                    return stream_position, (self.view(inputs), label), tuple(unread)
                except UnreadableImageError as error:
                    unread.append((position, str(error)))
                    place = (place + 1) % len(self)
        raise DataError("KD401", f"none of {len(self)} images can be read; the last: {unread[-1][1]}")

    def _sample(self, position: int) -> Sample:
        if self.decoded is not None and position in self.decoded:
            return self.decoded[position]
        if isinstance(self.source, Stream):
            raise TypeError("a stream gives no single images; stream_views.py reads it")
        sample = self.source.sample(position)
        if self.decoded is not None:
            self.decoded[position] = sample
        return sample

    def view_of(self, record: Record, stream_position: int) -> Sample:
        """The view of a stream's picture at this position. Raises UnreadableImageError."""
        if not isinstance(self.source, Stream):
            raise TypeError("only a stream has records")
        with seeded(f"{self.seed} {stream_position}"):
            inputs, label = self.source.decoded(record)
            return self.view(inputs), label

    def collate(self, read: Sequence[ViewRead]) -> TrainBatch:
        samples = [sample for _, sample, _ in read]
        inputs = self.images.source.finish(torch.stack([inputs for inputs, _ in samples]))
        return TrainBatch(
            inputs=self.mix(inputs, f"{self.seed} mix {read[0][0]}"),
            labels=stack_labels([label for _, label in samples]),
            unread=tuple(one for *_, unread in read for one in unread),
        )


def view_loader(views: Views, batch_size: int, seed: int, *, begin: int = 0, workers: int = 0) -> DataLoader[ViewRead]:
    """Endless batches from batch `begin`. `workers` processes decode, where images are decoded at every read."""
    close = getattr(views.source, "close", None)
    if close is not None:
        close()  # processes must not share the position of an open file
    return DataLoader(
        views,
        batch_sampler=Order(len(views), batch_size, seed, begin),
        num_workers=workers if views.decodes else 0,
        collate_fn=views.collate,
        generator=torch.Generator(),  # a DataLoader draws from the global generator even without shuffling
    )


class _Cropping(Decoder):
    """A random crop of the whole image, mirrored or not: the augmentation of a large image."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        how = InterpolationMode(config.interpolation)
        size = config.input_size[1:]
        if config.crop_mode in FULL_SIZE:
            crop: Any = v2.RandomCrop(size, pad_if_needed=True, padding_mode="reflect")
        else:
            crop = v2.RandomResizedCrop(size, CROP_SCALE, interpolation=how)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def _shifted(size: tuple[int, ...]) -> v2.Compose:
    """A shift by up to an eighth of the side, black beyond the border, mirrored or not."""
    return v2.Compose([v2.RandomCrop(size[1:], padding=max(size[1:]) // 8), v2.RandomHorizontalFlip()])


def _identity(inputs: Tensor) -> Tensor:
    return inputs
