"""Writing a converted folder: whole or not at all.

config.json        timm's fields (config.py), and the record of record.py: model, data, the sha256 of every file
model.safetensors  the tensors, under the names of ../stored.py
recipe.yaml        as given          plan.json    as resolved
report.json        what was measured README.md    the model card
loader.py          reads the folder with torch alone; for people, kdna never runs it
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.atomic import disk_errors, new_folder, require_writable
from ...core.errors import FolderError
from ...core.filesize import header, metadata
from ...core.specs import to_json
from ...core.tensorfile import save_tensors
from ..packed import CODED, coded_specs, unpack
from ..stored import stored_specs, stored_state
from .card import model_card
from .config import timm_config
from .conversion import Conversion
from .record import CARD, CONFIG, LOADER, OR_FORCE, PLAN, RECIPE, REPORT, TENSORS, is_ours, with_record
from .report import to_plain
from .trust import remember_saved

STANDALONE_LOADER = Path(__file__).parent / "standalone_loader.py"


def save(conversion: Conversion, directory: str | Path, force: bool = False) -> Path:
    """Write the folder and return its path. A folder that `force` replaces stays whole until the new one is complete.

    Args:
        conversion: What `convert`, `finetune` or `open_folder` returned. A net that `load` returned is not enough.

    Raises:
        TypeError: For anything but a Conversion.
        FolderError: KD601 (the folder exists and `force` is not given, or kdna did not write it), KD604 (it cannot be
            written), KD609 (the weights of a coded model have changed since they were coded).
    """
    if not isinstance(conversion, Conversion):
        raise TypeError(
            f"save takes a Conversion, as convert, finetune and open_folder return, not {type(conversion).__name__}"
        )
    target = Path(directory)
    require_free(target, force)
    name = target.resolve().name
    with disk_errors(target), new_folder(target) as folder:
        _write_tensors(conversion, folder / TENSORS)
        _write(folder / RECIPE, conversion.recipe)
        _write(folder / PLAN, to_json(conversion.plan))
        _write(folder / REPORT, _json(to_plain(conversion.report)))
        shutil.copyfile(STANDALONE_LOADER, folder / LOADER)
        _write(folder / CARD, model_card(conversion.plan, conversion.recipe, conversion.report, name))
        ref, data = conversion.plan.model, conversion.data
        config = with_record(timm_config(conversion.model, ref.name, data), folder, ref, data)
        _write(folder / CONFIG, _json(config))
    if conversion.origin.refusal is None:
        remember_saved(target)
    return target


def require_free(target: Path, force: bool) -> None:
    """Check before the work that `save` may write to `target`. Raises FolderError KD601 and KD604 as `save` does."""
    if target.exists() and not force:
        raise FolderError("KD601", f"{target} exists already; {OR_FORCE}")
    if target.exists() and not is_ours(target):
        raise FolderError("KD601", f"{target} was not written by kdna, and --force does not replace it; choose another")
    require_writable(target)


def _write_tensors(conversion: Conversion, path: Path) -> None:
    """Equal contents give equal bytes: safetensors alone writes the keys of the metadata in random order."""
    about = metadata(conversion.plan.model, conversion.recipe)
    if conversion.coded is None:
        tensors, specs = stored_state(conversion.model), list(stored_specs(conversion.model))
    else:
        tensors, specs = _coded(conversion.coded, conversion.model), coded_specs(conversion.coded)
    save_tensors(path, tensors, about)
    canonical = header(specs, about)
    with path.open("r+b") as file:
        written = file.read(len(canonical))
        if json.loads(written[8:]) == json.loads(canonical[8:]):
            file.seek(0)
            file.write(canonical)


def _coded(coded: bytes, model: nn.Module) -> dict[str, Tensor]:
    """The one tensor of a coded file, which must decode to the model's weights."""
    decoded, current = unpack(coded), stored_state(model)
    if decoded.keys() != current.keys() or not all(torch.equal(decoded[name], current[name].cpu()) for name in decoded):
        raise FolderError("KD609", "the weights have changed since they were coded; code them again")
    return {CODED: torch.frombuffer(bytearray(coded), dtype=torch.uint8)}


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())  # line ends as given, on every system


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
