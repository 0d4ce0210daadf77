"""Clips for a net of inputs (channels, frames, height, width): folders of frames, and video files.

Each folder that holds images is one clip, its frames in the order of their names, and so is each video file. The folder
above the clips is their class. A clip's frames are evenly spaced: the middle one of each of as many equal parts.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.data.readers.img_extensions import IMG_EXTENSIONS
from timm.utils.misc import natural_key
from torch import Tensor

from ...core.errors import DataError
from ...core.regular import open_regular, require_regular
from ...core.specs import DataConfig
from .decoding import Decoder, UnreadableImageError, one_line
from .sources import Classes, Sample, class_numbers, count_suffixes

_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


class ClipSource:
    """The clips of a folder, sorted by path. `skipped` has those whose class the class map does not name."""

    def __init__(self, root: Path, config: DataConfig, class_map: Classes | None) -> None:
        if config.crop_mode == "random":
            raise DataError("KD406", "all frames of a clip are cut at one place; pass --crop middle instead of random")
        channels, self.count, *size = config.input_size
        self.frame = Decoder(replace(config, input_size=(channels, *size)))
        found = sorted(_clips(root), key=lambda clip: clip[0].as_posix())
        if not found:
            raise DataError("KD401", f"{root}: no clips found; pass a folder of videos, or of folders of frames")
        classes = [clip.parent.name for clip, _ in found]
        numbers = {name: number for number, name in enumerate(sorted(set(classes), key=natural_key))}
        self.root, self.mapped = root, class_map is not None
        self.classes: Classes = class_numbers(root, numbers, class_map)
        self.labeled = bool(self.classes)
        labels = [self.classes.get(name) for name in classes]
        rows = [(clip, frames, label) for (clip, frames), label in zip(found, labels, strict=True)]
        self.clips = [row for row in rows if not self.labeled or row[2] is not None]
        unmapped = [row[0].as_posix() for row in rows if self.labeled and row[2] is None]
        self.skipped = dict.fromkeys(unmapped, "its folder is not in the class map")

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, index: int) -> str:
        return self.clips[index][0].as_posix()

    def sample(self, index: int) -> Sample:
        clip, frames, label = self.clips[index]
        chosen = self._of_files(clip, frames) if frames else self._of_video(self.root / clip)
        return torch.stack(list(chosen), dim=1), label

    def finish(self, inputs: Tensor) -> Tensor:
        """uint8 (B, C, T, H, W) to normalized float32."""
        return self.frame.finish(inputs.flatten(2)[..., None]).reshape(inputs.shape)

    def _of_files(self, clip: Path, frames: Sequence[str]) -> Iterator[Tensor]:
        for place in evenly(len(frames), self.count):
            try:
                with open_regular(self.root / clip / frames[place]) as file:
                    yield self.frame(file)
            except (OSError, UnreadableImageError) as error:
                raise UnreadableImageError(f"{frames[place]}: {error}") from error

    def _of_video(self, path: Path) -> list[Tensor]:
        av: Any = importlib.import_module("av")
        try:
            require_regular(path)
            with av.open(str(path)) as video:
                packets = sum(1 for packet in video.demux(video=0) if packet.size)
                video.seek(0)
                wanted = evenly(packets, self.count)
                images = {
                    place: frame.to_image() for place, frame in enumerate(video.decode(video=0)) if place in wanted
                }
        except Exception as error:  # decoders raise almost any exception for a damaged file
            raise UnreadableImageError(one_line(error)) from error
        missing = [place for place in wanted if place not in images]
        if missing or not wanted:
            raise UnreadableImageError(f"{packets} frames, of which {len(set(missing))} cannot be decoded")
        return [self.frame(images[place]) for place in wanted]


def takes_clips(config: DataConfig) -> bool:
    """Whether the net's inputs are clips: (channels, frames, height, width)."""
    return len(config.input_size) == 4


def evenly(frames: int, count: int) -> list[int]:
    """The middle frame of each of `count` equal parts of a clip. Frames of a shorter clip occur several times."""
    return [(2 * part + 1) * frames // (2 * count) for part in range(count if frames else 0)]


def _clips(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each clip's path below the root, and the names of its frames; none for a video."""
    count_suffixes(root)  # which refuses a loop of links
    for folder, _, files in os.walk(root, followlinks=True):
        below = Path(folder).relative_to(root)
        frames = sorted((file for file in files if file.lower().endswith(IMG_EXTENSIONS)), key=natural_key)
        videos = [file for file in files if file.lower().endswith(_VIDEOS)]
        if frames and below == Path():
            raise DataError("KD401", f"{root}: the net takes clips; put the frames of each clip in a folder of its own")
        if videos and importlib.util.find_spec("av") is None:
            raise DataError("KD401", f"{Path(folder, videos[0])}: the package av is missing; pip install av")
        if frames:
            yield below, tuple(frames)
        for video in videos:
            yield below / video, ()
