"""Nets small enough to convert in a second, named as MODEL (support/tiny.py:net), and nets with a defect."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE, CLASSES = 16, 5


class ResidualBlock(nn.Module):
    """A residual block of two equal 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class Net(nn.Module):
    """Stem, equal blocks, classifier; says itself what its input is."""

    def __init__(self, width: int = 12, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.fc = nn.Linear(width, CLASSES)
        self.pretrained_cfg = {
            "input_size": (3, SIZE, SIZE),
            "crop_pct": 1.0,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "num_classes": CLASSES,
        }

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def net(width: int = 12, blocks: int = 2) -> nn.Module:
    return Net(width, blocks)


def net_with_statistics(seed: int = 0) -> Net:
    """A net whose normalizations have statistics of their own."""
    torch.manual_seed(seed)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net.eval()


def noise(count: int, seed: int = 0) -> Tensor:
    """Inputs of the net."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def nothing_to_convert() -> nn.Module:
    model = Net(blocks=0)
    model.stem = nn.Conv2d(3, 12, 3, padding=1)
    return model


def sick_weight() -> nn.Module:
    model = Net()
    with torch.no_grad():
        model.blocks[1].conv2.weight[0, 0] = torch.nan
    return model


def sick_activation() -> nn.Module:
    """Finite weights, and a running variance that divides by nearly nothing: infinity in blocks.1."""
    model = Net()
    model.blocks[0].bn2.weight.data.fill_(3e38)
    return model


def broken_forward() -> nn.Module:
    model = Net()
    model.fc = nn.Linear(7, CLASSES)
    return model


def no_factory() -> str:
    return "not a module"
