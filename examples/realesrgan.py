"""RRDBNet, the generator of ESRGAN (Wang et al. 2018) and Real-ESRGAN (Wang et al. 2021): four times the resolution.

A residual dense block has five 3x3 convolutions. Each reads the outputs of all before it. Three blocks are an RRDB.
Images are in [0, 1] and are not normalized.

    kdna analyze examples/realesrgan.py:x4plus_anime --checkpoint realesrgan_x4plus_anime.safetensors
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The input, in timm's terms: crops of 64 pixels, as loaded.
PRETRAINED_CFG = {"input_size": (3, 64, 64), "crop_pct": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class DenseBlock(nn.Module):
    """Five convolutions, each of all outputs so far; a fifth of the last is added to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            self.add_module(f"conv{i + 1}", _conv(channels + i * growth, growth if i < 4 else channels))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, F.leaky_relu(conv(seen), 0.2)], 1)
        y: Tensor = self.conv5(seen)
        return x + 0.2 * y


class RRDB(nn.Module):
    """Residual in residual: three dense blocks, a fifth of their output added to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + 0.2 * y


class RRDBNet(nn.Module):
    """Map images (B, 3, height, width) to images of four times the height and width."""

    def __init__(self, blocks: int, channels: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.pretrained_cfg = PRETRAINED_CFG
        self.conv_first = _conv(3, channels)
        self.body = nn.Sequential(*(RRDB(channels, growth) for _ in range(blocks)))
        self.conv_body = _conv(channels, channels)
        self.conv_up1, self.conv_up2 = _conv(channels, channels), _conv(channels, channels)
        self.conv_hr, self.conv_last = _conv(channels, channels), _conv(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(x)
        y = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2.0, mode="nearest")), 0.2)
        image: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2))
        return image


def _conv(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, padding=1)


def x4plus() -> RRDBNet:
    """16.7 M parameters."""
    return RRDBNet(23)


def x4plus_anime() -> RRDBNet:
    """4.5 M parameters."""
    return RRDBNet(6)
