"""Spoken digits by espeak-ng, a speech synthesizer: other voices in training, validation and test.

    apt-get install espeak-ng
    python benchmarks/spoken_digits.py FOLDER       # a minute

Writes FOLDER/SPLIT/DIGIT/VOICE_TAKE.wav, ten takes of each digit and voice at random pitch and speed; files that exist
are kept. The files are the same in every run of one version of espeak-ng. `noisy` makes log-mel spectrograms of them,
in pink noise, as images of 64 x 64 pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TAKES = 10
# Each variant of espeak-ng speaks in one accent of its split. No variant occurs in two splits.
VARIANTS = {
    "train": ("m1", "m2", "m3", "m5", "f1", "f2", "f3", "f5"),
    "validation": ("m4", "m6", "f4", "linda", "steph"),
    "test0": ("m7", "m8", "belinda", "david", "edward", "grandma", "john", "shelby"),
    "test1": ("benjamin", "aunty", "victor", "anika", "paul", "zac", "robert", "travis"),
    "test2": ("boris", "norbert", "pablo", "Annie", "quincy", "max", "ed", "Andrea"),
}
ACCENTS = ("en-us", "en-gb")
TEST_ACCENTS = (*ACCENTS, "en-gb-scotland", "en-029", "en-gb-x-rp")
PITCH, SPEED = (20, 80), (120, 220)  # espeak-ng's own scale of 0 to 99; words per minute
RATE, SAMPLES, WINDOW, HOP, SIDE = 16000, 16000, 512, 250, 64
DECIBELS = (5.0, 20.0)  # speech over noise


@dataclass(frozen=True)
class Spoken:
    """Utterances without noise: waves of at most a second at 16 kHz, and the digits (count,)."""

    waves: tuple[NDArray[np.float32], ...]
    digits: Tensor


def write(folder: Path) -> str:
    """Write the files that do not exist, and return a digest of all. Raises SystemExit without espeak-ng."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng speaks the digits, and is not installed: apt-get install espeak-ng")
    digest = hashlib.sha256()
    for split in VARIANTS:
        for voice, digit, take in product(voices(split), range(10), range(TAKES)):
            file = folder / split / str(digit) / f"{voice}_{take}.wav"
            if not file.exists():
                _speak(voice, WORDS[digit], take, file)
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def voices(split: str) -> list[str]:
    """The voices of a split, by their names in espeak-ng."""
    accents = TEST_ACCENTS if split.startswith("test") else ACCENTS
    return [f"{accent}+{variant}" for accent, variant in zip(cycle(accents), VARIANTS[split])]


def _speak(voice: str, word: str, take: int, file: Path) -> None:
    drawn = random.Random(f"{voice} {word} {take}")
    pitch, speed = drawn.randint(*PITCH), drawn.randint(*SPEED)
    file.parent.mkdir(parents=True, exist_ok=True)
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-w", str(file), word]
    subprocess.run(command, check=True)


def read(folder: Path, split: str) -> Spoken:
    """The utterances of a split, sorted by digit, voice and take."""
    files = [(file, digit) for digit in range(10) for file in sorted((folder / split / str(digit)).glob("*.wav"))]
    return Spoken(tuple(_wave(file) for file, _ in files), torch.tensor([digit for _, digit in files]))


def _wave(file: Path) -> NDArray[np.float32]:
    """A file at 16 kHz, without the silence around the word, with a root mean square of 1."""
    rate, samples = wavfile.read(file)
    wave = resample_poly(samples.astype(np.float64), RATE // 50, rate // 50)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1][:SAMPLES]
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def noisy(spoken: Spoken, indices: Sequence[int], seed: int) -> Tensor:
    """Spectrograms (count, 3, 64, 64) of these utterances, each at a random place in a second of pink noise.

    Each has mean 0 and standard deviation 1, and its three channels are equal.
    """
    drawn = np.random.default_rng(seed)
    mixed = np.empty((len(indices), SAMPLES), np.float32)
    for row, index in zip(mixed, indices, strict=True):
        wave = spoken.waves[index]
        row[:] = pink(drawn) * 10 ** (-drawn.uniform(*DECIBELS) / 20)
        start = drawn.integers(SAMPLES - len(wave) + 1)
        row[start : start + len(wave)] += wave
    images = log_mel(torch.from_numpy(mixed))
    images = (images - images.mean((1, 2), keepdim=True)) / images.std((1, 2), keepdim=True)
    return images[:, None].expand(-1, 3, -1, -1).contiguous()


def pink(drawn: np.random.Generator) -> NDArray[np.float64]:
    """A second of noise whose power falls with the frequency, with a root mean square of 1."""
    spectrum = np.fft.rfft(drawn.standard_normal(SAMPLES))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)))
    return noise / np.sqrt(np.mean(noise**2))


def log_mel(waves: Tensor) -> Tensor:
    """Log-mel spectrograms (count, 64 bands from low to high, 64 frames): triangles on the power of short windows."""
    window = torch.hann_window(WINDOW)
    power = torch.stft(waves, WINDOW, HOP, window=window, return_complex=True).abs().square()[:, :, :SIDE]
    top = 2595 * np.log10(1 + RATE / 1400)
    edges = 700 * (10 ** (torch.linspace(0, float(top), SIDE + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    filters = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (filters @ power + 1e-2).log()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    print(write(parser.parse_args().folder))


if __name__ == "__main__":
    main()
