"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition" (2015), section 4.2.

A net has 6n + 2 layers with weights: a 3x3 stem of 16 channels, three stages of n blocks of two 3x3 convolutions at 16,
32 and 64 channels, a global mean and a linear classifier. Shortcuts have no parameters (the paper's option A): at the
start of a stage every second pixel is kept, and the missing channels are zeros.

    kdna analyze examples/cifar_resnet.py:resnet56 --checkpoint cifar10_resnet56.safetensors
"""

import torch.nn.functional as F
from torch import Tensor, nn

# The input, in timm's terms: 32-pixel images, not cropped, normalized with ImageNet's statistics.
PRETRAINED_CFG = {
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "num_classes": 10,
}


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut. The first convolution halves the image if `stride` is 2."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra = channels - channels_in

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: subsample, and pad with zero channels, half of them on each side."""
        if self.stride == 1 and self.extra == 0:
            return x
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Map images (B, 3, 32, 32) to logits (B, classes). Each of the three stages has `blocks` blocks."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.pretrained_cfg = PRETRAINED_CFG | {"num_classes": num_classes}
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(channels_in, channels, stride)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """0.27 M parameters."""
    return CifarResNet(3, num_classes)


def resnet32(num_classes: int = 10) -> CifarResNet:
    """0.46 M parameters."""
    return CifarResNet(5, num_classes)


def resnet44(num_classes: int = 10) -> CifarResNet:
    """0.66 M parameters."""
    return CifarResNet(7, num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    """0.86 M parameters."""
    return CifarResNet(9, num_classes)


def resnet110(num_classes: int = 10) -> CifarResNet:
    """1.73 M parameters."""
    return CifarResNet(18, num_classes)
