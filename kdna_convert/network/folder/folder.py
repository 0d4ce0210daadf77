"""The converted folder: written whole or not at all, checked before it is read, never executed.

config.json        timm's fields, and the record of record.py: model, data, the sha256 of every file
model.safetensors  the tensors, under the names of ../stored.py
recipe.yaml        as given          plan.json    as resolved
report.json        what was measured README.md    the model card
loader.py          reads all this with torch alone; for people, never run by kdna
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ...core.atomic import new_folder
from ...core.errors import CheckpointError, FolderError
from ...core.filesize import file_size, header, metadata
from ...core.specs import DataConfig, Plan, from_json, to_json
from ...core.tensorfile import load_tensors, save_tensors
from ..derive import derive_empty, fold
from ..packed import CODED, coded_specs, unpack
from ..stored import folded_tensors, load_stored, stored_specs, stored_state
from .card import model_card
from .rebuild import rebuild
from .record import (
    CARD,
    CONFIG,
    FILES,
    LOADER,
    PLAN,
    RECIPE,
    REPORT,
    TENSORS,
    Record,
    check_file,
    is_ours,
    read_record,
    with_record,
)
from .report import Report, from_plain, to_plain

T = TypeVar("T")

_LOADER = Path(__file__).parent / "loader.py"
# timm's pretrained_cfg says where the original's weights lie; those are not these.
_SOURCES = frozenset({"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "custom_load", "source"})


@dataclass
class Conversion:
    """A converted model and all that is known about it. The model is still the timm or torchvision one.

    `recipe` is the YAML as given; `divergence` and `command` of `report` go on the model card.
    `coded` are the bytes that the model's tensors were decoded from (container.py); None where the file has them plain.
    """

    model: nn.Module
    plan: Plan
    data: DataConfig
    recipe: str
    report: Report = field(default_factory=Report)
    coded: bytes | None = None


def save(conversion: Conversion, directory: str | Path, force: bool = False) -> Path:
    """Write the folder and return its path. What stood there before is untouched until the new one is complete.

    Raises FolderError KD601 when the folder exists and `force` is not given, or holds what kdna did not write; KD604
    when it cannot be written; KD609 when a coded model's weights are no longer those that were coded.
    """
    target = Path(directory)
    require_free(target, force)
    name = target.resolve().name
    with _disk_errors(target), new_folder(target) as folder:
        _write_tensors(conversion, folder / TENSORS)
        _write(folder / RECIPE, conversion.recipe)
        _write(folder / PLAN, to_json(conversion.plan))
        _write(folder / REPORT, _json(to_plain(conversion.report)))
        shutil.copyfile(_LOADER, folder / LOADER)
        _write(folder / CARD, model_card(conversion.plan, conversion.recipe, conversion.report, name))
        config = with_record(_timm_config(conversion), folder, conversion.plan.model, conversion.data)
        _write(folder / CONFIG, _json(config))
    return target


def uncoded(conversion: Conversion) -> Conversion:
    """The conversion with plain tensors, free to change, and its plan with the size that their file has."""
    if conversion.coded is None:
        return conversion
    about = metadata(conversion.plan.model, conversion.recipe)
    planned = replace(conversion.plan.planned, bytes=file_size(stored_specs(conversion.model), about))
    report = replace(conversion.report, code=None)
    return replace(conversion, plan=replace(conversion.plan, planned=planned), report=report, coded=None)


def require_free(target: Path, force: bool) -> None:
    """Raises FolderError KD601 as save would: to be asked before the work, not after it."""
    if target.exists() and not force:
        raise FolderError("KD601", f"{target} exists already; choose another place or pass --force")
    if target.exists() and not is_ours(target):
        raise FolderError("KD601", f"{target} holds what kdna did not write, and --force does not replace that")


def open_folder(directory: str | Path, *, model: nn.Module | None = None) -> Conversion:
    """Read a folder back, every file checked against the folder's record first; the model is in eval mode.

    The architecture is built anew from its recorded name; a `model` passed in is converted in place instead. Raises
    FolderError KD602 (not ours), KD603 (damaged, and where), KD605 (written by a newer kdna), KD607 (the architecture
    cannot be built), PlanError KD503 or CheckpointError KD303 (`model` is another one).
    """
    folder = Path(directory)
    record, plan, tensors, coded = _read(folder)
    report = _parse(folder / REPORT, lambda text: from_plain(from_json(dict[str, Any], text)))
    model = rebuild(record.model, folder) if model is None else model
    load_stored(derive_empty(model, plan), tensors)
    return Conversion(model.eval(), plan, record.data, (folder / RECIPE).read_bytes().decode(), report, coded)


def load(directory: str | Path, *, folded: bool = False, model: nn.Module | None = None) -> nn.Module:
    """The converted model of a folder, in eval mode; with `folded`, as ordinary weights.

    Raises what open_folder does and, folded, FolderError KD606 when a gate depends on the input.
    """
    if not folded:
        return open_folder(directory, model=model).model
    folder = Path(directory)
    record, plan, tensors, _ = _read(folder)
    model = rebuild(record.model, folder) if model is None else model
    if plan.routes:
        return fold(load_stored(derive_empty(model, plan), tensors)).eval()
    return load_stored(model, folded_tensors(plan, tensors)).eval()


def _read(folder: Path) -> tuple[Record, Plan, dict[str, Tensor], bytes | None]:
    """What a folder holds, once its files are seen to be what its record says; coded tensors both ways."""
    record = read_record(folder)
    for name in FILES:
        if name != CARD:  # a model card is its owner's to edit; verify says that it was
            check_file(folder, record, name)
    try:
        tensors, _ = load_tensors(folder / TENSORS)
    except CheckpointError as error:
        raise FolderError("KD603", error.message) from error
    coded = tensors[CODED].numpy().tobytes() if set(tensors) == {CODED} else None
    return record, _parse(folder / PLAN, partial(from_json, Plan)), tensors if coded is None else unpack(coded), coded


def export_merged(conversion: Conversion, path: str | Path, force: bool = False) -> Path:
    """Write the folded net as one safetensors file with the original's keys and dtypes; the conversion stays as it is.

    Raises FolderError KD601 (exists), KD604 (cannot be written), KD606 (a gate depends on the input).
    """
    target = Path(path)
    if target.is_dir() or (target.exists() and not force):
        raise FolderError("KD601", f"{target} exists already; choose another file or pass --force")
    state = fold(copy.deepcopy(conversion.model)).state_dict()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _disk_errors(target):
        save_tensors(target, {name: tensor.clone() for name, tensor in state.items()}, {"format": "pt"})
    return target


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise FolderError("KD604", f"{target} could not be written: {reason}; nothing was left behind") from error


def _write_tensors(conversion: Conversion, path: Path) -> None:
    """A file whose bytes depend on its contents alone: safetensors writes the metadata's keys in random order."""
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
    """The one tensor of a coded file, once it is sure that it holds the model's weights."""
    held, now = unpack(coded), stored_state(model)
    if held.keys() != now.keys() or not all(torch.equal(held[name], now[name].cpu()) for name in held):
        raise FolderError("KD609", "the weights have changed since they were coded; code them again")
    return {CODED: torch.frombuffer(bytearray(coded), dtype=torch.uint8)}


def _timm_config(conversion: Conversion) -> dict[str, Any]:
    """config.json as timm writes it for the Hub, as far as the model carries what belongs there."""
    model = conversion.model
    given = getattr(model, "pretrained_cfg", None)
    timm = {key: value for key, value in given.items() if _is_plain(key, value)} if isinstance(given, Mapping) else {}
    config: dict[str, Any] = {"architecture": timm.get("architecture", conversion.plan.model.name)}
    counts = {name: getattr(model, name, None) for name in ("num_classes", "num_features")}
    config |= {name: count for name, count in counts.items() if isinstance(count, int)}
    return config | ({"pretrained_cfg": timm} if timm else {})


def _is_plain(key: str, value: object) -> bool:
    return key not in _SOURCES and isinstance(value, str | int | float | list | tuple)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())  # line ends as given, on every system


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _parse(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except ValidationError as error:
        what = str(error).splitlines()[0]
        raise FolderError("KD603", f"{path} is damaged: {what}; restore it or convert again") from None
