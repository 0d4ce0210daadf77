"""Safetensors files: named tensors and a few strings, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from .errors import CheckpointError
from .filesize import ITEM_BYTES
from .regular import open_regular
from .specs import TensorSpec

# Up to this size a file is read at once: reading hundreds of small tensors one by one takes three times as long.
AT_ONCE = 64 * 2**20
# Bounds of a header, far above those of any net: its bytes, its tensors, the axes and the elements of a tensor.
HEADER_LIMIT = 16 * 2**20
MOST_TENSORS = 2**16
MOST_AXES = 16
LONGEST = 2**48
_LENGTH = 8  # bytes of the header's length


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file beside its final place, then move it there. A failure leaves the old file unchanged.

    Raises:
        OSError: The file cannot be written. The caller, which knows what the file is for, reports it.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, name, dict(metadata or {}))
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except SafetensorError as error:  # safetensors reports a full disk like this
        raise OSError(str(error)) from error
    finally:
        Path(name).unlink(missing_ok=True)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, on the CPU, and the metadata of a safetensors file. Raises CheckpointError KD304."""
    read_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            small = Path(path).stat().st_size <= AT_ONCE
            tensor = load(Path(path).read_bytes()).__getitem__ if small else file.get_tensor
            return {key: tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError("KD304", f"{path}: cannot be read as safetensors: {error}") from error


def read_header(path: str | Path) -> list[TensorSpec]:
    """The tensors that a safetensors file announces, in the order of its header.

    Raises:
        CheckpointError: KD304 for a file that is not regular, a header that is longer than the file or HEADER_LIMIT, a
            shape that no tensor can have, an unknown dtype, or more than MOST_TENSORS tensors.
    """
    try:
        entries = json.loads(header_text(path), object_pairs_hook=_unique)
        return [_spec(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    except OSError as error:
        raise CheckpointError("KD304", f"{path}: cannot be read as safetensors: {error.strerror or error}") from error
    except (ValueError, RecursionError, AttributeError) as error:
        raise CheckpointError("KD304", f"{path}: cannot be read as safetensors: {error}") from error


def header_text(path: str | Path) -> bytes:
    """The JSON header of a safetensors file. Raises OSError, ValueError."""
    with open_regular(path) as file:
        rest = os.fstat(file.fileno()).st_size - _LENGTH
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > rest:
            raise ValueError(f"its header has {length:,} bytes, and the file {max(rest, 0):,} after the length")
        if length > HEADER_LIMIT:
            raise ValueError(f"its header has {length:,} bytes, more than {HEADER_LIMIT:,}")
        return file.read(length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_TENSORS:
        raise ValueError(f"it announces {len(pairs):,} tensors, more than {MOST_TENSORS:,}")
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("its header has a name twice")
    return entries


def _spec(name: str, entry: Any) -> TensorSpec:
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ValueError(f"{name} has the dtype {dtype!r}")
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(type(axis) is int for axis in shape):
        raise ValueError(f"{name} has a shape that no tensor can have")
    if not all(0 <= axis <= LONGEST for axis in shape) or prod(max(axis, 1) for axis in shape) > LONGEST:
        raise ValueError(f"{name} has a shape that no tensor can have")
    return TensorSpec(name, tuple(shape), dtype)
