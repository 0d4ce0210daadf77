"""CREPE (Kim et al. 2018, arXiv 1802.06182): the pitch of a sound, from 64 ms of its samples at 16 kHz.

Six convolutions over time, then 360 sigmoids: one for each 20 cents, from 32 to 2,006 Hz. A frame has 1,024 samples.
The net normalizes it to mean 0 and standard deviation 1.

    kdna convert examples/crepe.py:tiny --checkpoint crepe_tiny.safetensors --data sounds --task regress \
        --recipe smallest --target-bytes 1/8 -o crepe-small
    CREPE=crepe_tiny.safetensors kdna eval crepe-small --trust-code --data others --metric examples/crepe.py:same_pitch
"""

import os
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

RATE, SAMPLES, PITCHES = 16000, 1024, 360
# The input: sounds at 16 kHz, one window of 1,024 samples.
PRETRAINED_CFG = {"input_size": (1, SAMPLES), "sample_rate": RATE}
# A frame is voiced if the largest of its outputs is at least this.
VOICED = 0.5


class Crepe(nn.Module):
    """Map frames (B, 1, 1024) to the salience of 360 pitches (B, 360), each in 0..1."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.pretrained_cfg = PRETRAINED_CFG
        for i, (before, after) in enumerate(pairwise((1, *channels)), 1):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            self.add_module(f"conv{i}", nn.Conv2d(before, after, (kernel, 1), (stride, 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(after, eps=1e-3))
        self.classifier = nn.Linear(4 * channels[-1], PITCHES)

    def forward(self, frames: Tensor) -> Tensor:
        frames = frames - frames.mean(2, keepdim=True)
        x = (frames / frames.std(2, keepdim=True, unbiased=False).clamp(min=1e-8))[..., None]  # silence stays 0
        for i in range(1, 7):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"conv{i}_BN")
            x = F.pad(x, (0, 0, *((254, 254) if i == 1 else (31, 32))))
            x = F.max_pool2d(norm(F.relu(conv(x))), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


def tiny() -> Crepe:
    """0.49 M parameters."""
    return Crepe((128, 16, 16, 16, 32, 64))


def full() -> Crepe:
    """22 M parameters."""
    return Crepe((1024, 128, 128, 128, 256, 512))


def pitch(salience: Tensor) -> Tensor:
    """The pitch in Hz (B,) of outputs (B, 360): their weighted mean within 4 steps of the largest, in cents."""
    steps = torch.arange(PITCHES, device=salience.device)
    weights = salience * ((steps - salience.argmax(1, keepdim=True)).abs() <= 4)
    cents = (weights * (20 * steps + 1997.3794084376191)).sum(1) / weights.sum(1)
    return 10 * 2 ** (cents / 1200)


def agreement(original: nn.Module, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]) -> tuple[int, int]:
    """The voiced frames, by the original, and those in which the net's pitch is within 50 cents of the original's."""
    device = next(net.parameters()).device
    voiced = same = 0
    with torch.inference_mode():
        for frames, _ in batches:
            first, second = (model.to(device)(frames.to(device)) for model in (original.eval(), net))
            cents = 1200 * (pitch(second) / pitch(first)).log2().abs()
            clear = first.amax(1) >= VOICED
            voiced, same = voiced + int(clear.sum()), same + int((clear & (cents <= 50)).sum())
    return voiced, same


def same_pitch(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]) -> float:
    """A --metric: the percentage of voiced frames within 50 cents of the net of the checkpoint that $CREPE names."""
    original = tiny()
    original.load_state_dict(load_file(os.environ["CREPE"]))
    voiced, same = agreement(original, net, batches)
    return 100 * same / voiced
