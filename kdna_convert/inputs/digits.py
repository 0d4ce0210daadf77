"""The bundled net and its data: a small residual net on scikit-learn's handwritten digits. Nothing is downloaded.

    kdna analyze kdna:digits --data kdna:digits/train

The data are the 1,797 real 8x8 images of the UCI test set of handwritten digits (Alpaydin and Kaynak 1998, CC BY 4.0).
examples/train_digits.py trains the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent.parent / "assets" / "digits.safetensors"
WIDTH = 32
MEAN, STD = 0.305, 0.376  # of the training part's pixels, which are in [0, 1]
Part = Literal["train", "test"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. All eight convolutions of the blocks have one kernel shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class DigitsNet(nn.Module):
    """Digits (B, 1, 8, 8) to logits (B, 10): a stem, two blocks at 8x8, two at 4x4, mean pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (1, 8, 8), "mean": (MEAN,), "std": (STD,), "crop_pct": 1.0}
        self.num_classes = 10
        self.stem = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)
        self.blocks = nn.Sequential(ResidualBlock(), ResidualBlock(), nn.MaxPool2d(2), ResidualBlock(), ResidualBlock())
        self.fc = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def digits_net() -> DigitsNet:
    """The architecture with random weights. `WEIGHTS` is the checkpoint of the trained ones."""
    return DigitsNet()


def digits(part: Part) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8), normalized as the net takes them, and labels (N,): 1,257 for training or 540 for testing."""
    images, labels = digit_pixels(part)
    return (images - MEAN) / STD, labels


def digit_pixels(part: Part) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,). The parts never change; both hold the same share of each digit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(pixels, labels, test_size=0.3, random_state=0, stratify=labels)
    x, y = (split[0], split[2]) if part == "train" else (split[1], split[3])
    return torch.from_numpy(x).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(y).long()
