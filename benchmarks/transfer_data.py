"""The new tasks of benchmarks/transfer.py: CIFAR-10 at 64 pixels, and spoken digits as spectrograms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import spoken_digits
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

SIDE = 64
VALIDATION, TEST = 500, 1000  # images; TEST is that of one seed
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Labeled(NamedTuple):
    """Images (count, 3, 64, 64) and their labels (count,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class NewTask:
    """A task that the net was not trained on.

    Attributes:
        train: The training images that a seed draws, so many.
        validation: Images for choosing a learning rate: out of the training data, and drawn by no seed.
        tests: Three sets without common images. Each seed is tested on its own.
        shift: The most pixels by which a training image is moved, along rows and columns.
        flips: Whether half of the training images are mirrored.
        about: What a row says about the data.
    """

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
        train=partial(_utterances, pool),
        validation=_utterances(validation, 0, VALIDATION),
        tests=tuple(_utterances(test, 0, TEST) for test in tests),
        shift=(0, 4),
        flips=False,
        about={"sounds": digest, "decibels": spoken_digits.DECIBELS},
    )


TASKS_BY_NAME: dict[str, Callable[[Path, Path], NewTask]] = {"cifar10": cifar10, "digits": digits}


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _pictures(folder: ImageFolder, indices: Tensor) -> Labeled:
    pairs = [folder[index] for index in indices.tolist()]
    small = torch.stack([pil_to_tensor(image) for image, _ in pairs]) / 255
    images = F.interpolate(small, SIDE, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return Labeled((images - mean) / std, torch.tensor([label for _, label in pairs]))


def _utterances(pool: spoken_digits.Spoken, seed: int, count: int) -> Labeled:
    """Utterances of the pool in random order, again and again, each time in another noise."""
    rounds = -(-count // len(pool.digits))
    order = torch.cat([_order(len(pool.digits), 1000 * seed + part) for part in range(rounds)])[:count]
    return Labeled(spoken_digits.noisy(pool, order.tolist(), seed), pool.digits[order])


def augmented(images: Tensor, task: NewTask, generator: torch.Generator) -> Tensor:
    """Images moved by a few pixels, at whose edge the last ones repeat, and mirrored."""
    rows, columns = task.shift
    padded = F.pad(images, (columns, columns, rows, rows), mode="replicate")
    places = [torch.randint(2 * reach + 1, (len(images),), generator=generator) for reach in (rows, columns)]
    moved = [padded[i, :, y : y + SIDE, x : x + SIDE] for i, (y, x) in enumerate(zip(*places, strict=True))]
    mirrored = torch.rand(len(images), generator=generator) < (0.5 if task.flips else 0)
    return torch.stack([one.flip(2) if flip else one for one, flip in zip(moved, mirrored.tolist(), strict=True)])
