"""A residual net of one width and one resolution, with random weights, whose cost the benchmarks of growth measure.

kdna analyze "benchmarks/plain_net.py:plain_net(width=64, depth=8, side=32)"
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class PlainNet(nn.Module):
    """Map images (B, 3, side, side) to ten logits. `depth` counts the 3x3 convolutions of the blocks.

    `stride` is that of the first convolution.
    """

    def __init__(self, width: int, depth: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, side, side), "crop_pct": 1.0, "num_classes": 10}
        self.num_classes = 10
        self.conv1 = nn.Conv2d(3, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth // 2)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def plain_net(width: int, depth: int, side: int, stride: int = 1) -> PlainNet:
    """The net; kdna seeds the weights of a factory."""
    return PlainNet(width, depth, side, stride)
