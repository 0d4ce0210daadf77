"""Dynamic routing for audio: a small net on log-mel spectrograms, `dymn` in its blocks, a wider net as teacher.

    python examples/audio_mel.py               # half a minute

The data are five kinds of synthetic sound at random pitch, in noise: a steady tone, a rising and a falling sweep, a
tremolo, and two alternating tones. kdna treats sound like images: a (1, mels, frames) spectrogram is an image of one
channel.
"""

import argparse
import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdna_convert.core.specs import Route
from kdna_convert.routing import ROUTINGS, attach_routes
from kdna_convert.stages.analyze.survey import survey
from kdna_convert.stages.finetune import Settings, finetune

RATE, SAMPLES, WINDOW, HOP, MELS, CLASSES = 8000, 4096, 256, 128, 32, 5


def sounds(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw waves (count, SAMPLES) and their labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(CLASSES, (count, 1), generator=generator)
    pitch, speed = (300 + 1200 * torch.rand(count, 1, generator=generator) for _ in range(2))
    time = torch.arange(SAMPLES)[None] / RATE
    beat = torch.sin(2 * math.pi * time * speed / 150)
    shift = torch.where(kinds == 1, speed * time, torch.where(kinds == 2, -speed / 4 * time, 0.0))
    shift = torch.where(kinds == 4, 150 * beat.sign(), shift)
    loudness = torch.where(kinds == 3, 0.5 + 0.5 * beat, 1.0)
    waves = loudness * torch.sin(2 * math.pi * torch.cumsum(pitch + shift, 1) / RATE)
    return waves + 0.7 * torch.randn(count, SAMPLES, generator=generator), kinds[:, 0]


def log_mel(waves: Tensor) -> Tensor:
    """Log-mel spectrograms (count, 1, MELS, frames): triangular filters on the power of a Fourier transform."""
    power = torch.stft(waves, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True).abs().square()
    edges = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + RATE / 1400), MELS + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    filters = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (filters @ power + 1e-3).log()[:, None] / 4


class Block(nn.Module):
    """An inverted residual: expand, depthwise convolution, project."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inside = 3 * inputs
        self.expand = nn.Sequential(nn.Conv2d(inputs, inside, 1, bias=False), nn.BatchNorm2d(inside), nn.ReLU())
        self.filter = nn.Sequential(
            nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False), nn.BatchNorm2d(inside), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(inside, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.filter(self.expand(x)))
        return x + y if self.skips else y


def net(width: int) -> nn.Sequential:
    stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    blocks = [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, CLASSES))


def train(model: nn.Module, x: Tensor, kinds: Tensor, epochs: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), kinds[index]).backward()
            optimizer.step()
    return model.eval()


def route(model: nn.Module, x: Tensor) -> nn.Module:
    """Return a copy with dymn in every block. Its outputs are those of the original."""
    options = {"kernels": 2, "width": 8}
    routing = ROUTINGS["dymn"](**options)
    layers = [layer for layer in survey(model, x[:1]) if routing.can_route(layer) is None]
    routed = copy.deepcopy(model)
    routes = [Route("dymn", group, options) for group in routing.groups(layers, routed)]
    return attach_routes(routed, routes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    (waves, kinds), (test_waves, answers) = sounds(arguments.sounds, 0), sounds(500, 1)
    x, test = log_mel(waves), log_mel(test_waves)
    teacher = train(net(16), x, kinds, arguments.epochs)
    student = train(net(4), x, kinds, arguments.epochs)
    routed = route(student, x)
    plain, settings = (
        copy.deepcopy(student),
        Settings(train="all", epochs=arguments.epochs, batch_size=64, augment=False),
    )
    for model in (plain, routed):
        finetune(model, teacher, x, settings)
    nets = {"teacher": teacher, "small": student, "small, distilled": plain, "small with dymn, distilled": routed}
    with torch.inference_mode():
        for name, model in nets.items():
            right = (model.eval()(test).argmax(1) == answers).float().mean()
            params = sum(parameter.numel() for parameter in model.parameters())
            print(f"{name:28} {params:7,} parameters  {100 * right:.1f} % of {len(test)} test sounds right")


if __name__ == "__main__":
    main()
