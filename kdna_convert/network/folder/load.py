"""Reading a converted folder back. Every file is checked against the folder's record first; nothing is executed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor, nn

from ...core.errors import CheckpointError, FolderError
from ...core.specs import Plan, from_json
from ...core.tensorfile import load_tensors
from ..derive import derive_empty, fold
from ..packed import CODED, unpack
from ..stored import folded_tensors, load_stored
from .config import describe
from .conversion import Conversion
from .rebuild import rebuild
from .record import CARD, FILES, PLAN, RECIPE, REPORT, TENSORS, Record, check_file, read_record
from .report import from_plain

T = TypeVar("T")


def open_folder(directory: str | Path, *, model: nn.Module | None = None) -> Conversion:
    """Read a folder back as a Conversion, its model in eval mode.

    Args:
        directory: A folder that `save` wrote.
        model: The architecture, converted in place. None builds it from its recorded name.

    Raises:
        FolderError: KD602 (not written by kdna), KD603 (damaged; the message names the file), KD605 (written by a newer
            kdna), KD607 (the architecture cannot be built).
        PlanError: KD503 (`model` has other layers).
        CheckpointError: KD303 (`model` has other tensors).
    """
    folder = Path(directory)
    record, plan, tensors, coded = _read(folder)
    report = _parse(folder / REPORT, lambda text: from_plain(from_json(dict[str, Any], text)))
    model = rebuild(record.model, folder) if model is None else model
    load_stored(derive_empty(model, plan), tensors)
    return Conversion(model.eval(), plan, record.data, (folder / RECIPE).read_bytes().decode(), report, coded)


def load(directory: str | Path, *, folded: bool = False, model: nn.Module | None = None) -> nn.Module:
    """Load the converted model of a folder, in eval mode. Its `pretrained_cfg` says which input the conversion used.

    Args:
        directory: A folder that `save` wrote.
        folded: Whether kernels become ordinary weights, as the original has them.
        model: The architecture, converted in place. None builds it from its recorded name.

    Raises:
        FolderError: As open_folder, and KD606 where `folded` and a routing depends on the input.
        PlanError: As open_folder.
        CheckpointError: As open_folder.
    """
    if not folded:
        return open_folder(directory, model=model).model
    folder = Path(directory)
    record, plan, tensors, _ = _read(folder)
    model = rebuild(record.model, folder) if model is None else model
    describe(model, record.data)
    if plan.routes:
        return fold(load_stored(derive_empty(model, plan), tensors)).eval()
    return load_stored(model, folded_tensors(plan, tensors)).eval()


def _read(folder: Path) -> tuple[Record, Plan, dict[str, Tensor], bytes | None]:
    """The record, plan and tensors of a folder, and the coded file where it has one."""
    record = read_record(folder)
    for name in FILES:
        if name != CARD:  # its owner may edit a model card; verify reports that
            check_file(folder, record, name)
    try:
        tensors, _ = load_tensors(folder / TENSORS)
    except CheckpointError as error:
        raise FolderError("KD603", error.message) from error
    coded = tensors[CODED].numpy().tobytes() if set(tensors) == {CODED} else None
    return record, _parse(folder / PLAN, partial(from_json, Plan)), tensors if coded is None else unpack(coded), coded


def _parse(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise FolderError("KD603", f"{path} is damaged: {reason}; restore it or convert again") from None
