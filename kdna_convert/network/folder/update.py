"""An update: what turns one converted folder into another, bit for bit, in one safetensors file.

Tensors that are equal in both folders are left out. Of a tensor of the same name and size, the bytes that differ are
stored: the exclusive or of both, one plane for each byte of a number, under LZMA. After a fine-tune most high bytes are
zero. The metadata has the digests of both records, which hold the sums of all files.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.atomic import disk_errors, new_folder, require_writable
from ...core.errors import CheckpointError, FolderError
from ...core.filesize import ITEM_BYTES, data_size
from ...core.regular import TEXT_LIMIT, read_regular
from ...core.specs import TensorSpec
from ...core.tensorfile import HEADER_LIMIT, header_text, load_tensors, read_header, save_tensors
from .contents import read_contents
from .record import CARD, CONFIG, FILES, TENSORS, read_record

FORMAT = "1"
_HEADER, _TEXT, _TENSOR = "header", "text:", "tensor:"
_TEXTS = tuple(name for name in (CONFIG, *FILES) if name != TENSORS)
# Texts that an owner may edit, or lay out otherwise, without changing the record: they are stored in any case.
_OWNERS = (CONFIG, CARD)
# The most bytes of the new tensors, in those of the old ones and of the update.
_MOST = 64
_LZMA: Any = {"format": lzma.FORMAT_XZ, "preset": 9}


@dataclass(frozen=True)
class Update:
    """What an update holds: its path and bytes, those of the whole new tensor file, and the number of its tensors."""

    file: str
    bytes: int
    whole: int
    changed: int
    equal: int


def diff(base: str | Path, changed: str | Path, output: str | Path, *, force: bool = False) -> Update:
    """Write the update that turns the folder `base` into the folder `changed`.

    Args:
        base: a converted folder.
        changed: another one, such as the same after a fine-tune.
        output: the file to write.
        force: whether to replace an existing file.

    Raises:
        FolderError: KD601 if the file exists and `force` is not given, KD602 or KD603 for a folder that is not whole,
            KD604 if the file cannot be written.
    """
    old, new, target = Path(base), Path(changed), Path(output)
    if target.exists() and (target.is_dir() or not force):
        raise FolderError("KD601", f"{target} exists already; choose another file or pass --force")
    require_writable(target)
    for folder in (old, new):
        read_contents(folder)
    before, after = _Tensors(old), _Tensors(new)
    parts = {_HEADER: after.header}
    for name in _TEXTS:
        text = read_regular(new / name)
        if name in _OWNERS or text != read_regular(old / name):
            parts[_TEXT + name] = text
    equal = 0
    for spec in after.specs:
        data = after.data(spec)
        if spec.name in before.named and np.array_equal(data, before.like(spec)):
            equal += 1
        else:
            parts[_TENSOR + spec.name] = _planes(data ^ before.like(spec), ITEM_BYTES[spec.dtype])
    packed = {name: _as_tensor(lzma.compress(part, **_LZMA)) for name, part in parts.items()}
    about = {"kdna_update": FORMAT, "base": read_record(old).sha256, "result": read_record(new).sha256}
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(target, packed, about)
    whole = (new / TENSORS).stat().st_size
    return Update(str(target), target.stat().st_size, whole, len(after.specs) - equal, equal)


def patch(base: str | Path, update: str | Path, output: str | Path) -> Path:
    """Write the folder that an update makes of `base`. Nothing is run, and `base` does not change.

    Args:
        base: the folder that the update was made from.
        update: the file that `diff` wrote.
        output: the folder to write.

    Raises:
        FolderError: KD601 if the output exists, KD602 or KD603 for a base that is not whole, KD604 if the output cannot
            be written, KD613 for an update of another folder, or a damaged one.
    """
    old, target = Path(base), Path(output)
    if target.exists():
        raise FolderError("KD601", f"{target} exists already; choose another place")
    require_writable(target)
    read_contents(old)
    parts, about = _read(Path(update))
    if about["base"] != read_record(old).sha256:
        raise FolderError("KD613", f"{update} is not an update of {old}; it was made from another folder")
    with disk_errors(target), new_folder(target) as folder:
        for name in _TEXTS:
            packed = parts.get(_TEXT + name)
            text = read_regular(old / name) if packed is None else _unpacked(packed, TEXT_LIMIT, update)
            (folder / name).write_bytes(text)
        (folder / TENSORS).write_bytes(b"".join(_new_tensors(old, Path(update), parts)))
        try:
            found = read_record(folder).sha256
            read_contents(folder)
        except FolderError as error:
            raise _damaged(update) from error
        if found != about["result"]:
            raise _damaged(update)
    return target


class _Tensors:
    """The tensor file of a folder: its header, and the bytes of each tensor."""

    def __init__(self, folder: Path) -> None:
        path = folder / TENSORS
        self.header = header_text(path)
        self.specs = read_header(path)
        self.named = {spec.name: spec for spec in self.specs}
        self.tensors = load_tensors(path)[0]

    def data(self, spec: TensorSpec) -> NDArray[np.uint8]:
        """The bytes of a tensor."""
        flat = self.tensors[spec.name].contiguous().reshape(-1).view(torch.uint8)
        found: NDArray[np.uint8] = flat.numpy()
        return found

    def like(self, spec: TensorSpec) -> NDArray[np.uint8]:
        """The bytes of the tensor of this name if it has the size of `spec`, else zeros."""
        own = self.named.get(spec.name)
        if own is None or data_size(own) != data_size(spec):
            return np.zeros(data_size(spec), np.uint8)
        return self.data(own)


def _new_tensors(old: Path, update: Path, parts: Mapping[str, bytes]) -> Iterator[bytes]:
    """The bytes of the new tensor file, piece by piece."""
    header = _unpacked(parts.get(_HEADER, b""), HEADER_LIMIT, update)
    before = _Tensors(old)
    specs = _specs(header, update)
    room = _MOST * ((old / TENSORS).stat().st_size + update.stat().st_size)
    if sum(map(data_size, specs)) > room:
        raise _damaged(update)
    yield len(header).to_bytes(8, "little") + header
    for spec in specs:
        packed, size = parts.get(_TENSOR + spec.name), data_size(spec)
        if packed is None:
            if spec.name not in before.named:
                raise _damaged(update)
            yield before.like(spec).tobytes()
        else:
            gap = _unpacked(packed, size, update)
            if len(gap) != size:
                raise _damaged(update)
            yield (_unplaned(gap, ITEM_BYTES[spec.dtype]) ^ before.like(spec)).tobytes()


def _specs(header: bytes, update: Path) -> list[TensorSpec]:
    """The tensors that a header announces, in the order of their bytes."""
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        rows = sorted((entry["data_offsets"][0], name, entry) for name, entry in entries.items())
        specs = [TensorSpec(name, tuple(map(int, entry["shape"])), entry["dtype"]) for _, name, entry in rows]
        if any(min(spec.shape, default=0) < 0 or spec.dtype not in ITEM_BYTES for spec in specs):
            raise ValueError("a shape or a dtype that no tensor has")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(update) from error
    return specs


def _read(update: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The parts of an update and its metadata."""
    try:
        tensors, about = load_tensors(update)
    except CheckpointError as error:
        raise FolderError("KD613", f"{error.message}; pass a file that `kdna diff` wrote") from error
    if about.get("kdna_update") != FORMAT or not {"base", "result"} <= about.keys():
        raise FolderError("KD613", f"{update} is not an update of this version; pass a file that `kdna diff` wrote")
    if any(tensor.dtype != torch.uint8 for tensor in tensors.values()):
        raise _damaged(update)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, about


def _planes(data: NDArray[np.uint8], item: int) -> bytes:
    """Bytes with the first of every number first, then the second of every number, and so on."""
    planes: bytes = data.reshape(-1, item).T.tobytes()
    return planes


def _unplaned(data: bytes, item: int) -> NDArray[np.uint8]:
    numbers: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(item, -1).T.reshape(-1)
    return numbers


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpacked(packed: bytes, most: int, update: str | Path) -> bytes:
    """The bytes of a part, at most so many. Raises FolderError KD613."""
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        data = decoder.decompress(packed, most + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise _damaged(update) from error
    if len(data) > most or not decoder.eof:
        raise _damaged(update)
    return data


def _damaged(update: str | Path) -> FolderError:
    return FolderError("KD613", f"{update} is damaged; nothing was written")
