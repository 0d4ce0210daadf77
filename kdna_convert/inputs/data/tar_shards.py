"""The shards of webdataset: tars in which the files of a sample follow each other and differ in what follows a dot.

Samples that are not asked for are passed over: of a local file, only their headers are read.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.regular import require_regular
from .decoding import UnreadableImageError, one_line
from .shards import LostShardError, Record

# Besides those of timm.
_IMAGES = ("jpeg",)
# webdataset's own files, which are no samples.
_META = re.compile(r"__[^/]*__($|/)")


class TarShards:
    """Shards by timm's reader of webdataset.

    Args:
        reader: timm's reader, which knows `_info.json`.
    """

    def __init__(self, reader: Any) -> None:
        info = reader.split_info
        self.names: Sequence[str] = [PurePosixPath(name).name for name in info.filenames]
        self.lengths: Sequence[int] | None = list(info.shard_lengths) or None
        if self.lengths is not None and len(self.lengths) != len(self.names):
            self.lengths = None
        self._places = [os.path.join(reader.root, name) for name in info.filenames]  # noqa: PTH118 - may be a URL
        self._images = (*reader.input_key.split(";"), *_IMAGES)
        self._label = info.alt_label

    def count(self, shard: int) -> tuple[int, str | None]:
        try:
            cursor = self.open(shard)
        except LostShardError as error:
            return 0, str(error)
        try:
            while cursor.pass_over():
                pass
            return cursor.number, cursor.torn()
        except LostShardError as error:
            return cursor.number, str(error)
        finally:
            cursor.close()

    def open(self, shard: int) -> TarCursor:
        return TarCursor(self._places[shard], self._images, self._label)


class TarCursor:
    """A cursor on a tar. `number` is that of the next sample."""

    def __init__(self, place: str, images: Sequence[str], label: str) -> None:
        self.number, self._images, self._label = 0, images, label
        self._tar: Any = None
        self.local = Path(place).exists() or ("://" not in place and not place.startswith("pipe:"))
        try:
            if self.local:
                if not Path(place).exists():
                    raise LostShardError("there is no such file")
                require_regular(place)  # a FIFO would block for ever
                self._file: Any = Path(place).open("rb")  # noqa: SIM115 - close() closes it
                self._tar = tarfile.open(fileobj=self._file)  # noqa: SIM115
            else:
                from webdataset import gopen

                self._file = gopen(place)
                self._tar = tarfile.open(fileobj=self._file, mode="r|*")  # noqa: SIM115
            self._ahead = self._member()
        except LostShardError:
            raise
        except Exception as error:  # a reader of URLs may raise anything
            with suppress(OSError):  # a command that failed says so again when it is closed
                self.close()
            raise LostShardError(one_line(error)) from error

    def read(self, place: int) -> Record:
        while self.number < place and self.pass_over():
            pass
        files = self._sample(keep=True) if self.number == place else None
        if files is None:
            raise LostShardError(f"it has only {self.number:,} samples")
        image = next((files[name] for name in self._images if name in files), None)
        if image is None:
            raise UnreadableImageError(f"the sample has no image, only {', '.join(sorted(files)) or 'no file'}")
        return image, self._class(files)

    def pass_over(self) -> bool:
        """Whether there was a sample, which is not read."""
        return self._sample(keep=False) is not None

    def torn(self) -> str | None:
        """Why the tar, at whose end this is, does not end as tars do; None where it does."""
        if not self.local or not self._file.seekable():
            return None
        self._file.seek(self._tar.offset)
        end = self._file.read(tarfile.BLOCKSIZE)
        whole = len(end) == tarfile.BLOCKSIZE and not any(end)
        return None if whole or self._compressed else f"it ends, torn, after {self.number:,} samples"

    def close(self) -> None:
        for opened in (self._tar, getattr(self, "_file", None)):
            if opened is not None:
                opened.close()

    @property
    def _compressed(self) -> bool:
        return self._tar.fileobj is not self._file

    def _sample(self, keep: bool) -> dict[str, bytes] | None:
        """The files of the next sample by suffix, only those that are kept; None at the end. Raises LostShardError."""
        if self._ahead is None:
            return None
        key, files = _parts(self._ahead.name)[0], {}
        try:
            while self._ahead is not None and (parts := _parts(self._ahead.name))[0] == key:
                if keep:
                    file = self._tar.extractfile(self._ahead)
                    files[parts[1]] = b"" if file is None else file.read()
                self._ahead = self._member()
        except Exception as error:
            raise LostShardError(f"torn after {self.number:,} samples: {one_line(error)}") from error
        self.number += 1
        return files

    def _member(self) -> tarfile.TarInfo | None:
        """The next file of a sample."""
        while True:
            member: tarfile.TarInfo | None = self._tar.next()
            self._tar.members = []  # tarfile would keep them all
            if member is None:
                return None
            file = member.name.rpartition("/")[2]
            if member.isreg() and not _META.match(member.name) and "." in file[1:] and file[:1] != ".":  # ._ of macOS
                return member

    def _class(self, files: dict[str, bytes]) -> int | None:
        try:
            label = json.loads(files["json"])[self._label] if self._label else files["cls"]
            number = int(label)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableImageError(f"the sample has no class: {one_line(error)}") from error
        return number if number >= 0 else None


def _parts(name: str) -> tuple[str, str]:
    """What a sample's files have in common, and the suffix: what follows the first dot of the last part of a path."""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()
