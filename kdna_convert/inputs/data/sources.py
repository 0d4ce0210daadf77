"""Sources of images, read by timm: a folder or a .tar. A source returns single images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

from timm.data.dataset_factory import create_dataset
from torch import Tensor

from ...core.errors import DataError
from ...core.regular import require_regular
from .decoding import Decoder, UnreadableImageError, one_line

# The most folders that are reached through links.
MOST_LINKED = 2**16

Label = int | Tensor  # a class; or a row of classes, a mask, boxes, numbers, or a target image
Sample = tuple[Tensor, Label | None]
Classes = Mapping[str, int]


class Source(Protocol):
    """Images in a fixed order.

    `classes` has the label of each class name, as far as the names are known; `mapped` says that a class map numbers
    them.
    """

    labeled: bool
    classes: Classes
    mapped: bool

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image's name for messages."""
        ...

    def sample(self, index: int) -> Sample:
        """One input as it is read, and its label. Raises UnreadableImageError."""
        ...

    def finish(self, inputs: Tensor) -> Tensor:
        """A batch of read inputs as the net takes it, float32."""
        ...


class FolderSource:
    """A folder or a .tar, sorted by path, so that a seed draws the same images on every machine.

    It is labeled if each image is in one of several folders, or in a folder that the class map names. `unmapped` lists
    the images that are skipped because the class map does not name their folder.
    """

    def __init__(self, path: Path, decode: Decoder, class_map: Classes | None) -> None:
        self.reader, folders, targets = _open_reader(path)
        self.is_folder = path.is_dir()
        self.decode = decode
        self.finish = decode.finish
        self.mapped = class_map is not None
        self.classes: Classes = class_numbers(path, folders, class_map)
        self.labeled = bool(self.classes)
        label_of = {target: self.classes.get(folder) for folder, target in folders.items()}
        names = [PurePath(name).as_posix() for name in self.reader.filenames()]
        rows = sorted(range(len(names)), key=names.__getitem__)
        kept = [row for row in rows if not self.labeled or label_of[targets[row]] is not None]
        self.rows = [(row, names[row], label_of[targets[row]]) for row in kept]
        self.unmapped = [names[row] for row in rows if self.labeled and label_of[targets[row]] is None]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return self.rows[index][1]

    def sample(self, index: int) -> Sample:
        row, _, label = self.rows[index]
        try:
            if self.is_folder:
                require_regular(self.reader.samples[row][0])  # a FIFO would block for ever
            file = self.reader[row][0]
        except OSError as error:
            raise UnreadableImageError(one_line(error)) from error
        with file:
            return self.decode(file), label

    def close(self) -> None:
        """Close a .tar; the next read opens it again. Worker processes must not share the position of an open file."""
        state = getattr(self.reader, "tar_state", None)
        for opened in () if state is None else (*state.children.values(), state):
            if opened.tf is not None:
                opened.tf.close()
                opened.tf = None

    def __del__(self) -> None:
        if hasattr(self, "reader"):
            self.close()


def class_numbers(path: Path, folders: Classes, class_map: Classes | None) -> Classes:
    """The label of each class name, by timm's numbers of the folders that hold the files; empty without labels.

    Files are labeled if each is in one of several folders, or in a folder that the class map names. Raises DataError
    KD402 for a class map of other folders.
    """
    if "" in folders or (len(folders) < 2 and class_map is None):
        return {}
    classes = folders if class_map is None else class_map
    if not any(folder in classes for folder in folders):
        named = f"(it names {_few(classes)}; the folders are {_few(folders)})"
        raise DataError("KD402", f"{path}: the class map names none of the folders {named}")
    return classes


def _open_reader(path: Path) -> tuple[Any, dict[str, int], list[int]]:
    """timm's reader, the number of each folder, and the number of each image's folder."""
    formats = (
        "pass a folder or uncompressed .tar of images, a folder of .wav files, kdna:digits/train, or a timm dataset: "
        "hfds/owner/name:train"
    )
    if not path.is_dir() and not (path.suffix == ".tar" and path.is_file()):
        problem = "not a folder" if path.exists() else "no such folder or file"
        raise DataError("KD401", f"{path}: {problem}; {formats}")
    if path.is_dir():
        count_suffixes(path)
    try:
        reader = create_dataset("", root=str(path), search_split=False).reader
    except Exception as error:
        raise DataError("KD401", f"{path}: no images found; {formats}") from error
    if path.is_dir():
        return reader, reader.class_to_idx, [target for _, target in reader.samples]
    return reader, reader.class_name_to_idx, [int(target) for target in reader.targets]


def count_suffixes(root: Path) -> Counter[str]:
    """How many files of each suffix, in lower case, are in a folder.

    Raises DataError KD401 for links that make a loop, or more paths than can be walked.
    """
    linked, suffixes = 0, Counter[str]()
    waiting: list[tuple[str, tuple[tuple[int, int], ...], bool]] = [(str(root), (_identity(root.stat()),), False)]
    while waiting:
        folder, above, by_link = waiting.pop()
        try:
            entries = [(entry, entry.is_dir()) for entry in os.scandir(folder)]
            inside = [entry for entry, is_folder in entries if is_folder]
            folders = [(entry, _identity(entry.stat()), by_link or entry.is_symlink()) for entry in inside]
        except OSError:
            continue  # the reader skips it too
        suffixes.update(Path(entry.name).suffix.lower() for entry, is_folder in entries if not is_folder)
        for entry, own, through_link in folders:
            linked += through_link
            if own in above or linked > MOST_LINKED:
                problem = (
                    "leads back to a folder above it" if own in above else f"is one of {linked:,} folders by links"
                )
                raise DataError("KD401", f"{entry.path} {problem}; remove the links from the folder of images")
            waiting.append((entry.path, (*above, own), through_link))
    return suffixes


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _few(names: Mapping[str, int]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (" ..." if len(names) > len(first) else "")
