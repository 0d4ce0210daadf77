"""The folded net as one safetensors file: ordinary weights for the original architecture."""

from __future__ import annotations

import copy
from pathlib import Path

from ...core.atomic import disk_errors
from ...core.errors import FolderError
from ...core.tensorfile import save_tensors
from ...network.derive import fold
from ...network.folder import Conversion


def export_merged(conversion: Conversion, path: str | Path, force: bool = False) -> Path:
    """Write the folded net with the original's keys and dtypes, and return the path. The conversion does not change.

    Raises:
        FolderError: KD601 (the file exists), KD604 (it cannot be written), KD606 (a routing depends on the input).
    """
    target = Path(path)
    if target.is_dir() or (target.exists() and not force):
        raise FolderError("KD601", f"{target} exists already; choose another file or pass --force")
    state = fold(copy.deepcopy(conversion.model)).state_dict()
    target.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(target):
        save_tensors(target, {name: tensor.clone() for name, tensor in state.items()}, {"format": "pt"})
    return target
