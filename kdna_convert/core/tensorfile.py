"""Safetensors files: named tensors and a few strings, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from .errors import CheckpointError

# Up to this size a file is read at once: reading hundreds of small tensors one by one takes three times as long.
AT_ONCE = 64 * 2**20


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
    try:
        with safe_open(str(path), framework="pt") as file:
            small = Path(path).stat().st_size <= AT_ONCE
            tensor = load(Path(path).read_bytes()).__getitem__ if small else file.get_tensor
            return {key: tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError("KD304", f"{path}: cannot be read as safetensors: {error}") from error
