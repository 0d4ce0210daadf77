"""Reading a converted folder back. Every file is checked against the folder's record first; nothing is executed."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..derive import fold
from .config import describe
from .contents import fill, fill_folded, read_contents
from .conversion import Conversion
from .rebuild import rebuild


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
    contents = read_contents(Path(directory))
    model = rebuild(contents.record.model, contents.folder) if model is None else model
    fill(model, contents)
    data, recipe = contents.record.data, contents.recipe
    return Conversion(model.eval(), contents.plan, data, recipe, contents.report, contents.coded)


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
    contents = read_contents(Path(directory))
    model = rebuild(contents.record.model, contents.folder) if model is None else model
    describe(model, contents.record.data)
    if contents.plan.routes:
        return fold(fill(model, contents)).eval()
    return fill_folded(model, contents).eval()
