"""Sounds: a folder of .wav files, cut into windows of the net's input size.

The windows of a file follow one another without overlap. What remains at its end is left out; a file shorter than a
window is padded with zeros. Channels are averaged for a net of one channel. Samples are in -1..1, resampled to the
net's rate by a polyphase filter.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import firwin, resample_poly
from timm.data.readers.img_extensions import IMG_EXTENSIONS
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch import Tensor

from ...core.errors import DataError
from ...core.regular import require_regular
from ...core.specs import SAMPLE_RATES, DataConfig, is_wave
from .decoding import UnreadableImageError, one_line
from .sources import Classes, Sample, class_numbers, count_suffixes

_WAV = (".wav", ".wave")
_OTHERS = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
# scipy.signal.resample_poly's filter reaches so many samples of the slower rate to each side.
_REACH = 10


@dataclass(frozen=True)
class Wave:
    """A file of sound: its name, its label, its own rate in Hz, and how many windows it has."""

    path: Path
    name: str
    label: int | None
    rate: int
    windows: int


class WaveSource:
    """The windows of all files, sorted by path. `skipped` has the files that cannot be read, with the reason."""

    def __init__(self, root: Path, config: DataConfig, class_map: Classes | None) -> None:
        if config.sample_rate is None:
            size = "" if is_wave(config.input_size) else " and --input-size CHANNELS,SAMPLES"
            way_out = f"pass --sample-rate HZ{size}"
            raise DataError("KD406", f"{root} holds sounds, and the net states no sample rate; {way_out}")
        if not is_wave(config.input_size):
            raise DataError(
                "KD406",
                f"sounds cannot become inputs of size {config.input_size}, only (channels, samples), (channels, "
                "samples, 1) or (channels, 1, samples); pass --input-size 1,16000, and compute spectrograms in the net",
            )
        self.size, self.rate = config.input_size, config.sample_rate
        self.mean_c1, self.std_c1 = (torch.tensor(values)[:, None] for values in (config.mean, config.std))
        found, folders = find_images_and_targets(str(root), types=_WAV, sort=False)
        self.mapped = class_map is not None
        self.classes: Classes = class_numbers(root, folders, class_map)
        self.labeled = bool(self.classes)
        label_of = {number: self.classes.get(folder) for folder, number in folders.items()}
        self.waves: list[Wave] = []
        self.skipped: dict[str, str] = {}
        named = {Path(file).relative_to(root).as_posix(): (Path(file), label_of[number]) for file, number in found}
        for name, (path, label) in sorted(named.items()):
            if self.labeled and label is None:
                self.skipped[name] = "its folder is not in the class map"
                continue
            try:
                self.waves.append(self._wave(path, name, label))
            except UnreadableImageError as error:
                self.skipped[name] = str(error)
        if not self.waves:
            name, reason = next(iter(self.skipped.items()))
            raise DataError(
                "KD401", f"{root}: none of {len(named)} .wav files can be read; the first: {name}: {reason}"
            )
        self.ends = list(accumulate(wave.windows for wave in self.waves))

    def __len__(self) -> int:
        return self.ends[-1]

    def name(self, index: int) -> str:
        wave, start = self._place(index)
        return f"{wave.name}@{start / self.rate:.3f}s"

    def sample(self, index: int) -> Sample:
        wave, start = self._place(index)
        window_tc = self._read(wave, start)
        if not np.isfinite(window_tc).all():
            raise UnreadableImageError("NaN or infinity among the samples")
        return torch.from_numpy(np.ascontiguousarray(window_tc.T)).reshape(self.size), wave.label

    def finish(self, inputs: Tensor) -> Tensor:
        """Normalized windows."""
        return ((inputs.flatten(2) - self.mean_c1) / self.std_c1).reshape(inputs.shape)

    def _place(self, index: int) -> tuple[Wave, int]:
        """The file of a window, and the window's first sample at the net's rate."""
        number = bisect_right(self.ends, index)
        wave = self.waves[number]
        return wave, (index - self.ends[number] + wave.windows) * self.length

    @property
    def length(self) -> int:
        """The samples of a window."""
        return math.prod(self.size[1:])

    def _wave(self, path: Path, name: str, label: int | None) -> Wave:
        """A file, of which only the header is read. Raises UnreadableImageError."""
        rate, samples_tc = _opened(path)
        channels = samples_tc.shape[1]
        if channels not in (1, self.size[0]) and self.size[0] > 1:
            raise UnreadableImageError(f"{channels} channels, and the net takes {self.size[0]}")
        samples = -(-len(samples_tc) * self.rate // rate)
        return Wave(path, name, label, rate, max(1, samples // self.length))

    def _read(self, wave: Wave, start: int) -> NDArray[np.float32]:
        """One window (samples, channels) at the net's rate. Only its part of the file is resampled."""
        common = math.gcd(self.rate, wave.rate)
        up, down = self.rate // common, wave.rate // common
        reach = _REACH * max(up, down) // up + 1
        block = max(0, (start * down // up - reach) // down)  # a block of `down` samples becomes one of `up`
        last = (start + self.length) * down // up + reach + 1
        part_tc = _mixed(_opened(wave.path)[1][block * down : last], self.size[0])
        begin = start - block * up
        window_tc = _resampled(part_tc, up, down)[begin : begin + self.length]
        padded: NDArray[np.float32] = np.pad(window_tc, ((0, self.length - len(window_tc)), (0, 0)))
        return padded


def holds_waves(root: Path) -> bool:
    """Whether a folder holds .wav files. Raises DataError KD401 for other sounds, and for images beside sounds."""
    if not root.is_dir():
        return False
    found = count_suffixes(root)
    waves, others, images = (sum(found[suffix] for suffix in kind) for kind in (_WAV, _OTHERS, IMG_EXTENSIONS))
    if waves and images:
        raise DataError("KD401", f"{root} holds {waves} .wav files and {images} images; pass a folder of one kind")
    if others and not images:
        raise DataError("KD401", f"{root} holds {others} sounds that are not .wav; convert them: ffmpeg -i a.mp3 a.wav")
    return waves > 0


def _opened(path: Path) -> tuple[int, NDArray[Any]]:
    """The rate of a file and its samples (samples, channels), mapped into memory. Raises UnreadableImageError."""
    try:
        require_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)  # a file that ends too early
            warnings.filterwarnings("ignore", "Chunk", wavfile.WavFileWarning)  # a chunk of other data
            try:
                rate, samples = wavfile.read(path, mmap=True)
            except ValueError:  # 24 bits cannot be mapped
                rate, samples = wavfile.read(path)
    except Exception as error:  # scipy raises almost any exception for a damaged file
        raise UnreadableImageError(one_line(error)) from error
    if not samples.size or rate not in SAMPLE_RATES:
        raise UnreadableImageError(f"{len(samples)} samples at {rate} Hz")
    return rate, samples.reshape(len(samples), -1)


def _resampled(samples_tc: NDArray[np.float32], up: int, down: int) -> NDArray[np.float32]:
    return samples_tc if up == down else np.asarray(resample_poly(samples_tc, up, down, window=_filter(up, down)))


@cache
def _filter(up: int, down: int) -> NDArray[np.float32]:
    """The filter that resample_poly designs at every call."""
    slower = max(up, down)
    taps: NDArray[np.float32] = firwin(2 * _REACH * slower + 1, 1 / slower, window=("kaiser", 5.0)).astype(np.float32)
    return taps


def _mixed(samples_tc: NDArray[Any], channels: int) -> NDArray[np.float32]:
    """Samples as floats in -1..1, with so many channels: their mean, or one repeated."""
    kind, largest = samples_tc.dtype.kind, 2.0 ** (8 * samples_tc.dtype.itemsize - 1)
    zero, scale = {"f": (0.0, 1.0), "i": (0.0, largest), "u": (largest, largest)}[kind]
    floats_tc = (np.asarray(samples_tc, dtype=np.float64) - zero) / scale
    if samples_tc.shape[1] != channels:
        floats_tc = floats_tc.mean(1, keepdims=True).repeat(channels, 1)
    return floats_tc.astype(np.float32)
