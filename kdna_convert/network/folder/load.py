"""Reading a converted folder back. Every file is checked against the folder's record first; nothing is executed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from ...core.errors import CheckpointError, FolderError, ModelError, PlanError
from ...core.specs import required
from ..derive import fold
from .config import describe
from .contents import fill, fill_folded, read_contents
from .conversion import Conversion, Origin
from .rebuild import rebuild
from .record import Record
from .trust import Claim, claim_of, permitted


def open_folder(directory: str | Path, *, model: nn.Module | None = None, trust_code: bool = False) -> Conversion:
    """Read a folder back as a Conversion, its model in eval mode.

    Args:
        directory: A folder that `save` wrote.
        model: The architecture, converted in place. None builds it from its recorded name.
        trust_code: Whether to run the code that the folder names. Needed for a folder from elsewhere whose net is not
            one that timm, torchvision or kdna lists.

    Raises:
        FolderError: KD602 (not written by kdna), KD603 (damaged; the message names the file), KD605 (written by a newer
            kdna), KD607 (the architecture cannot be built), KD611 (building it needs `trust_code`).
        PlanError: KD503 (`model` has other layers).
        CheckpointError: KD303 (`model` has other tensors).
    """
    contents = read_contents(Path(directory))
    origin = _origin(contents.record, contents.folder, trust_code)
    if model is None and origin.refusal is not None:
        raise origin.refusal
    with _suggest_a_module(given=model is not None):
        model = rebuild(required(origin.permit), contents.folder) if model is None else model
        fill(model, contents)
    data, recipe = contents.record.data, contents.recipe
    return Conversion(model.eval(), contents.plan, data, recipe, contents.report, contents.coded, origin)


def load(
    directory: str | Path, *, folded: bool = False, model: nn.Module | None = None, trust_code: bool = False
) -> nn.Module:
    """Load the converted model of a folder, in eval mode. Its `pretrained_cfg` says which input the conversion used.

    Args:
        directory: A folder that `save` wrote.
        folded: Whether kernels become ordinary weights, as the original has them.
        model: The architecture, converted in place. None builds it from its recorded name.
        trust_code: Whether to run the code that the folder names, as for open_folder.

    Raises:
        FolderError: As open_folder, and KD606 where `folded` and a routing depends on the input.
        PlanError: As open_folder.
        CheckpointError: As open_folder.
    """
    if not folded:
        return open_folder(directory, model=model, trust_code=trust_code).model
    contents, given = read_contents(Path(directory)), model is not None
    if model is None:
        model = rebuild(permitted(contents.record, contents.folder, trust_code=trust_code), contents.folder)
    describe(model, contents.record.data)
    with _suggest_a_module(given=given):
        return (fold(fill(model, contents)) if contents.plan.routes else fill_folded(model, contents)).eval()


@contextmanager
def _suggest_a_module(given: bool) -> Iterator[None]:
    """The error of a net that does not fit, where no module was given, suggests to give one."""
    try:
        yield
    except (PlanError, CheckpointError) as error:
        if given:
            raise
        way_out = "if its name alone does not build this net, build it yourself and pass model="
        raise type(error)(error.code, f"{error.message}; {way_out}") from error


def read_claim(directory: str | Path) -> Claim:
    """What a folder would run, its files checked. Nothing is run. Raises what read_contents raises, and KD607."""
    contents = read_contents(Path(directory))
    try:
        return claim_of(contents.record)
    except ModelError as error:
        raise FolderError("KD607", f"{contents.folder}: {error.message}") from error


def _origin(record: Record, folder: Path, trust_code: bool) -> Origin:
    """How the original is built again, and whether it may be."""
    try:
        return Origin(folder, permitted(record, folder, trust_code=trust_code))
    except FolderError as error:
        return Origin(folder, refusal=error)
