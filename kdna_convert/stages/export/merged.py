"""`merged`: the original net's state dict with the converted weights, as one safetensors file."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...core.atomic import disk_errors
from ...core.tensorfile import save_tensors
from ...network.derive import fold
from ...network.folder import Conversion
from .export import Export, free_path


@dataclass(frozen=True)
class MergedFile:
    """The safetensors file: its path and its size in bytes."""

    file: str
    bytes: int

    @property
    def note(self) -> str:
        return "loads into the original net"

    @property
    def usage(self) -> str | None:
        return f'model.load_state_dict(safetensors.torch.load_file("{self.file}"))'


@dataclass(frozen=True)
class Merged(Export):
    """One safetensors file with the original's keys and dtypes."""

    name: ClassVar[str] = "merged"
    suffix: ClassVar[str] = "-merged.safetensors"

    def write(self, conversion: Conversion, path: str | Path, *, force: bool = False) -> MergedFile:
        """As Export.write. Raises FolderError KD606 too, if the routing depends on the input."""
        target = free_path(path, force)
        state = fold(copy.deepcopy(conversion.model)).state_dict()
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(target, {name: tensor.clone() for name, tensor in state.items()}, {"format": "pt"})
        return MergedFile(str(target), target.stat().st_size)
