"""A net of one-dimensional convolutions on windows of an accelerometer, for a microcontroller.

    python examples/sensors.py draw sensors                      # 1,500 windows to train, 500 to test
    python examples/sensors.py train sensors -o sensors.safetensors

    kdna plan examples/sensors.py:net --checkpoint sensors.safetensors --data sensors/train \
        --board nucleo-l4r5zi --max-latency 60ms --max-peak-memory 20kB

Each window is a quarter of a second of three axes at 1,024 Hz, of a synthetic motor in one of five states. A window is
a .wav file of three channels in the folder of its state, as kdna reads time series. The axes see the same vibration at
their own gain, in noise.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.io import wavfile
from torch import Tensor, nn

RATE, SAMPLES, AXES = 1024, 256, 3
CLASSES = ("bearing", "healthy", "loose", "stopped", "unbalanced")  # as kdna sorts the folders
BATCH = 50
Signal = NDArray[np.float64]


class Block(nn.Module):
    """Two convolutions over time beside a skip path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(channels, channels), nn.BatchNorm1d(channels)
        self.conv2, self.norm2 = conv(channels, channels), nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + x)


def conv(before: int, after: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(before, after, 5, stride, padding=2, bias=False)


def net() -> nn.Sequential:
    """Map windows (B, 3, 256) to the scores of the five states (B, 5)."""
    widths = (32, 64, 96)
    layers: list[nn.Module] = [conv(AXES, widths[0]), nn.BatchNorm1d(widths[0]), nn.ReLU()]
    for before, after in zip(widths, (*widths[1:], widths[-1]), strict=True):
        layers += [Block(before), conv(before, after, stride=2), nn.BatchNorm1d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(widths[-1], len(CLASSES)))
    own: dict[str, object] = {
        "input_size": (AXES, SAMPLES),
        "sample_rate": RATE,
        "mean": (0.0,) * AXES,
        "std": (1.0,) * AXES,
    }
    model.pretrained_cfg = own  # type: ignore[assignment]
    return model


def window(state: str, noise: np.random.Generator) -> Signal:
    """One window (256, 3) in -1..1.

    A motor turns 20 to 40 times a second. Healthy, it vibrates at that rate and its double. Unbalanced, the first is
    stronger; loose, there are half rates and sharp harmonics; a worn bearing rings at 200 Hz, several times a turn.
    """
    rate, phase = noise.uniform(20, 40), noise.uniform(0, 2 * np.pi)
    turns = rate * np.arange(SAMPLES) / RATE * 2 * np.pi + phase
    vibration = 0.1 * np.sin(turns) + 0.06 * np.sin(2 * turns)
    if state == "stopped":
        vibration = 0.0 * turns
    elif state == "unbalanced":
        vibration = vibration + noise.uniform(0.06, 0.15) * np.sin(turns)
    elif state == "loose":
        vibration = vibration + 0.07 * np.sin(turns / 2) + noise.uniform(0.03, 0.08) * np.sign(np.sin(3 * turns))
    elif state == "bearing":
        since = (turns * 3.6 / (2 * np.pi)) % 1.0 / (3.6 * rate)  # seconds since the last hit
        vibration = vibration + noise.uniform(0.06, 0.15) * np.exp(-120 * since) * np.sin(2 * np.pi * 200 * since)
    gains = noise.uniform(0.4, 1.0, AXES)
    axes = vibration[:, None] * gains + noise.normal(0, 0.12, (SAMPLES, AXES))
    return np.clip(axes, -1, 1)


def draw(out: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write so many windows of each split, with as many of each state, as files split/state/0001.wav."""
    noise = np.random.default_rng(seed)
    for split, count in counts.items():
        for number in range(count):
            state = CLASSES[number % len(CLASSES)]
            folder = out / split / state
            folder.mkdir(parents=True, exist_ok=True)
            wavfile.write(folder / f"{number:04}.wav", RATE, window(state, noise).astype(np.float32))


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """All windows of a split (N, 3, 256), and their states (N,)."""
    files = sorted(folder.glob("*/*.wav"))
    waves = torch.stack([torch.from_numpy(wavfile.read(file)[1]).T for file in files])
    return waves.contiguous(), torch.tensor([CLASSES.index(file.parent.name) for file in files])


def train(data: Path, epochs: int, seed: int = 0) -> nn.Module:
    """AdamW with a one-cycle learning rate."""
    torch.manual_seed(seed)
    model, (waves, states) = net(), read(data / "train")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(waves) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    began = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(waves)).split(BATCH):
            loss = F.cross_entropy(model(waves[index]), states[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += len(index) * loss.item()
        print(f"epoch {epoch + 1:2}  loss {total / len(waves):.4f}  {time.monotonic() - began:.0f} s", flush=True)
    return model.eval()


def accuracy(model: nn.Module, data: Path) -> float:
    """The share of the test windows whose state is right."""
    waves, states = read(data / "test")
    with torch.no_grad():
        return float((model(waves).argmax(1) == states).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw the windows")
    drawing.add_argument("out", type=Path)
    drawing.add_argument("--train", type=int, default=1500)
    drawing.add_argument("--test", type=int, default=500)
    training = commands.add_parser("train", help="train the net")
    training.add_argument("data", type=Path, help="the folder of the windows")
    training.add_argument("--epochs", type=int, default=6)
    training.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "draw":
        draw(given.out, {"train": given.train, "test": given.test})
    else:
        model = train(given.data, given.epochs)
        print(f"{accuracy(model, given.data):.1%} of the test windows right")
        save_file(model.state_dict(), given.output)


if __name__ == "__main__":
    main()
