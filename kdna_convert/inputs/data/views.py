"""Images to train on: each seen in another view every time, in an order and with draws that a seed and a place decide.

Nothing is drawn from a generator that goes on: image number p of the stream of seed s is the same image in the same
view in every run, whichever process reads it and wherever it began. That is what a stopped run is gone on with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from ...core.errors import DataError
from ...core.specs import DataConfig, product
from .images import Images, passing, shuffled, stacked
from .mixing import drawing, mixer
from .sources import Decoder, Sample, Source, Stream, UnreadableImageError

# Up to this side an image is decoded once and shifted within a border of an eighth, as CIFAR's always are; a larger one
# is decoded each time, to crop it from all of its pixels.
SMALL = 64
# What decoded images may take, as uint8.
MEMORY = 2**30
CROP_SCALE = (0.35, 1.0)  # of a large image's area

Key = tuple[int, int]  # the place in the stream, which decides the view, and the place among the images
Unread = tuple[int, str]
Read = tuple[int, Sample, tuple[Unread, ...]]  # the place in the stream, a view, and what it stands in for


@dataclass(frozen=True)
class TrainBatch:
    """Inputs (B, ...) as the net takes them, labels (B,) or (B, length) where all have some, and what was unread."""

    inputs: Tensor
    labels: Tensor | None
    unread: tuple[Unread, ...]


class Order:
    """A batch sampler without an end: all images in a new order by `seed`, then all in another, from batch `begin`."""

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


class Views(Dataset[Read]):
    """The images of a folder or a dataset in a random view each; tensors and one's own Dataset as they are.

    An image that cannot be read has the next one in its place, so that every batch is full. With `mixup`, the inputs of
    a batch are mixed in pairs by Beta(mixup, mixup); their labels are the first image's.
    """

    def __init__(self, images: Images, config: DataConfig | None, seed: int, augment: bool, mixup: float = 0.0) -> None:
        decoded = config is not None and hasattr(images.source, "decode")
        size = config.input_size if config is not None else ()
        small = decoded and max(size[1:]) <= SMALL
        self.images, self.seed = images, seed
        self.source: Source | Stream = images.source
        self.known: dict[int, Sample] | None = None
        self.view: Callable[[Tensor], Tensor] = _identity
        self.mix = mixer(mixup)
        if isinstance(self.source, Stream):
            self.known = _whole(images, self.source, size)
        elif small and len(images) * product(size) <= MEMORY:
            self.known = {}
        if decoded and config is not None and augment:
            if small or isinstance(self.source, Stream):
                self.view = _shifted(size)
            else:
                self.source = copy.copy(self.source)
                setattr(self.source, "decode", _Cropping(config))  # noqa: B010 - of Files and Named alone

    @property
    def decodes(self) -> bool:
        """Whether every look at an image decodes it: what worker processes are for."""
        return self.known is None and hasattr(self.source, "decode")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Read:
        stream_place, place = key
        unread: list[Unread] = []
        with drawing(f"{self.seed} {stream_place}"):
            while len(unread) < len(self):
                position = self.images.positions[place]
                try:
                    inputs, label = self._sample(position)
                    return stream_place, (self.view(inputs), label), tuple(unread)
                except UnreadableImageError as error:
                    unread.append((position, str(error)))
                    place = (place + 1) % len(self)
        raise DataError("KD401", f"none of {len(self)} images could be read; the last: {unread[-1][1]}")

    def _sample(self, position: int) -> Sample:
        if self.known is not None and position in self.known:
            return self.known[position]
        if isinstance(self.source, Stream):
            raise UnreadableImageError("not an image")
        sample = self.source.sample(position)
        if self.known is not None:
            self.known[position] = sample
        return sample

    def collate(self, read: Sequence[Read]) -> TrainBatch:
        samples = [sample for _, sample, _ in read]
        inputs = self.images.source.finish(torch.stack([inputs for inputs, _ in samples]))
        return TrainBatch(
            inputs=self.mix(inputs, f"{self.seed} mix {read[0][0]}"),
            labels=stacked([label for _, label in samples]),
            unread=tuple(one for *_, unread in read for one in unread),
        )


def train_loader(views: Views, batch_size: int, seed: int, *, begin: int = 0, workers: int = 0) -> DataLoader[Read]:
    """Batches without end, from batch `begin` on. `workers` processes decode, where images are decoded each time."""
    close = getattr(views.source, "close", None)
    if close is not None:
        close()  # processes must not share one open file's position
    return DataLoader(
        views,
        batch_sampler=Order(len(views), batch_size, seed, begin),
        num_workers=workers if views.decodes else 0,
        collate_fn=views.collate,
        generator=torch.Generator(),  # a DataLoader draws from the global one even when it does not shuffle
    )


class _Cropping(Decoder):
    """A random part of the whole image, mirrored or not: what a large image is trained on."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        how = InterpolationMode(config.interpolation)
        crop = v2.RandomResizedCrop(config.input_size[1:], CROP_SCALE, interpolation=how)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def _shifted(size: tuple[int, ...]) -> v2.Compose:
    """A shift by up to an eighth, black where the image was not, mirrored or not."""
    return v2.Compose([v2.RandomCrop(size[1:], padding=max(size[1:]) // 8), v2.RandomHorizontalFlip()])


def _identity(inputs: Tensor) -> Tensor:
    return inputs


def _whole(images: Images, source: Stream, size: tuple[int, ...]) -> dict[int, Sample]:
    """A stream's images, read in one pass. Raises DataError KD407 when there is no room for them."""
    if len(images) * product(size) > MEMORY:
        room = MEMORY // max(1, product(size))
        why = f"a stream is trained on from memory, which has room for {room:,} images of this size"
        raise DataError("KD407", f"{why}; name fewer, as in wds/FOLDER:train|{room}, or use a folder or hfds/")
    known: dict[int, Sample] = {}
    for [(position, sample)] in passing(source, set(images.positions), 1):
        if isinstance(sample, UnreadableImageError):
            images.skip(position, str(sample))
        else:
            known[position] = sample
    return known
