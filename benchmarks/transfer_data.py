"""The new tasks of benchmarks/transfer.py: CIFAR-10 at 64 pixels, spoken digits as spectrograms, shapes by pixels."""

from __future__ import annotations

import hashlib
import runpy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import spoken_digits
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor
from transfer_kinds import OF_IMAGES, OF_PIXELS, Kind

SHAPES = Path(__file__).parent.parent / "examples" / "shapes.py"
DRAWN = 4800  # pictures of shapes to train on: in 300 steps, each seed sees all of them in an order of its own
SIDE = 64
VALIDATION, TEST = 500, 1000  # images; TEST is that of one seed
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Labeled(NamedTuple):
    """Images (count, 3, 64, 64) and their labels: (count,), or (count, 64, 64) for those of pixels."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class NewTask:
    """A task that the net was not trained on.

    Attributes:
        kind: What it asks of a net.
        train: The training images that a seed draws, so many.
        validation: Images for choosing a learning rate: out of the training data, and drawn by no seed.
        tests: Three sets without common images. Each seed is tested on its own.
        shift: The most pixels by which a training image is moved, along rows and columns.
        flips: Whether half of the training images are mirrored.
        about: What a row says about the data.
    """

    kind: Kind
    train: Callable[[int, int], Labeled]
    validation: Labeled
    tests: tuple[Labeled, ...]
    shift: tuple[int, int]
    flips: bool
    about: dict[str, Any]


def cifar10(data: Path, sounds: Path) -> NewTask:
    """CIFAR-10, enlarged from 32 to 64 pixels."""
    train, test = (ImageFolder(str(data / "cifar10" / part)) for part in ("train", "test"))
    order = _order(len(train), 0)
    pool = order[VALIDATION:]
    parts = _order(len(test), 0).tensor_split(3)
    return NewTask(
        kind=OF_IMAGES,
        train=lambda seed, count: _pictures(train, pool[_order(len(pool), seed)[:count]]),
        validation=_pictures(train, order[:VALIDATION]),
        tests=tuple(_pictures(test, part[:TEST]) for part in parts),
        shift=(4, 4),
        flips=True,
        about={},
    )


def digits(data: Path, sounds: Path) -> NewTask:
    """Spoken digits. Validation and each test have voices of their own."""
    digest = spoken_digits.write(sounds)
    pool, validation, *tests = (spoken_digits.read(sounds, split) for split in spoken_digits.VARIANTS)
    return NewTask(
        kind=OF_IMAGES,
        train=partial(_utterances, pool),
        validation=_utterances(validation, 0, VALIDATION),
        tests=tuple(_utterances(test, 0, TEST) for test in tests),
        shift=(0, 4),
        flips=False,
        about={"sounds": digest, "decibels": spoken_digits.DECIBELS},
    )


def shapes(data: Path, sounds: Path) -> NewTask:
    """The shapes that examples/shapes.py draws over photographs, those of a split over its own ones."""
    tests = [f"test{part}" for part in range(3)]
    counts = {"train": DRAWN, "validation": VALIDATION, **dict.fromkeys(tests, TEST // 2)}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        runpy.run_path(str(SHAPES))["draw"](data / "imagenet" / "calibration_diverse", out, counts)
        drawn = {split: _drawn(out / split) for split in counts}
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for split in drawn.values() for part in split))
    pool = drawn["train"]
    return NewTask(
        kind=OF_PIXELS,
        train=lambda seed, count: _scaled(pool, _order(DRAWN, seed).repeat(-(-count // DRAWN))[:count]),
        validation=_scaled(drawn["validation"]),
        tests=tuple(_scaled(drawn[test]) for test in tests),
        shift=(4, 4),
        flips=True,
        about={"pictures": digest.hexdigest()[:12]},
    )


TASKS_BY_NAME: dict[str, Callable[[Path, Path], NewTask]] = {"cifar10": cifar10, "digits": digits, "shapes": shapes}


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _pictures(folder: ImageFolder, indices: Tensor) -> Labeled:
    pairs = [folder[index] for index in indices.tolist()]
    images = torch.stack([pil_to_tensor(image) for image, _ in pairs])
    return _scaled(Labeled(images, torch.tensor([label for _, label in pairs])))


def _drawn(folder: Path) -> Labeled:
    """The pictures of a split, images of bytes and masks of 64 pixels."""
    images, masks = (
        [pil_to_tensor(Image.open(file)) for file in sorted((folder / part).iterdir())] for part in ("images", "masks")
    )
    small = F.interpolate(torch.stack(masks), SIDE, mode="nearest-exact")
    return Labeled(torch.stack(images), small[:, 0])


def _scaled(data: Labeled, indices: Tensor | slice = slice(None)) -> Labeled:
    """Those of these indices: images of bytes resized to 64 pixels and normalized as ImageNet's are."""
    small = data.images[indices] / 255
    images = F.interpolate(small, SIDE, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return Labeled((images - mean) / std, data.labels[indices].long())


def _utterances(pool: spoken_digits.Spoken, seed: int, count: int) -> Labeled:
    """Utterances of the pool in random order, again and again, each time in another noise."""
    rounds = -(-count // len(pool.digits))
    order = torch.cat([_order(len(pool.digits), 1000 * seed + part) for part in range(rounds)])[:count]
    return Labeled(spoken_digits.noisy(pool, order.tolist(), seed), pool.digits[order])


def augmented(data: Labeled, task: NewTask, generator: torch.Generator) -> Labeled:
    """Images moved by a few pixels, at whose edge the last ones repeat, and mirrored; labels of pixels with them."""
    count = len(data.images)
    places = [torch.randint(2 * reach + 1, (count,), generator=generator).tolist() for reach in task.shift]
    mirrored = (torch.rand(count, generator=generator) < (0.5 if task.flips else 0)).tolist()

    def moved(maps: Tensor) -> Tensor:
        rows, columns = task.shift
        padded = F.pad(maps, (columns, columns, rows, rows), mode="replicate")
        cut = [padded[i, :, y : y + SIDE, x : x + SIDE] for i, (y, x) in enumerate(zip(*places, strict=True))]
        return torch.stack([one.flip(2) if flip else one for one, flip in zip(cut, mirrored, strict=True)])

    return Labeled(moved(data.images), task.kind.follow(data.labels, moved))
