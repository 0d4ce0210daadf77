"""The verb `report`: a converted folder as a page in HTML."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import __version__
from ..core.errors import FolderError
from ..core.machine import cpu_name
from ..core.progress import as_progress
from ..core.specs import Progress
from ..html import Material, Page, page_of
from ..inputs.data import Data
from ..network.folder import Conversion
from ..network.folder.contents import read_contents
from .answer_comparison import answer_comparison
from .keywords import ReportOptions, check_keywords
from .nets import checkpoint_of, opened, original_from

if TYPE_CHECKING:
    from typing_extensions import Unpack


def report(
    folder: str | Path,
    *,
    data: Data | str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    pictures: bool = True,
    progress: Progress | bool | None = None,
    **options: Unpack[ReportOptions],
) -> Page:
    """A page of a converted folder: what came out, its layers, where accuracy went, how it was made.

    Code that the folder names is run only with `trust_code`, or after `kdna trust`. Without, and without the original,
    the parts that need them are left out and say so.

    Args:
        folder: a folder that `convert` or `run` wrote.
        data: images on which the answers of both nets are compared, labeled for accuracy: a path, a tensor, or batches.
        limit: use only this number of images, drawn with `seed`.
        seed: seed of that draw.
        pictures: whether the page shows some of these images. Without, their names and the answers remain.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: model, trust_code, checkpoint, inputs, class_map, device, task and outputs, as for `evaluate`.

    Returns:
        The page, one HTML file that loads nothing. `save(path)` writes it; a notebook shows it.

    Raises:
        FolderError: KD602, KD603 or KD605, as `load`.
        DataError: KD401, KD402 or KD406 for images that do not fit, as for `evaluate`.
        ModelError: KD308 or KD313 for a task that does not, as for `evaluate`.
    """
    check_keywords("report", options, ReportOptions)
    contents = read_contents(Path(folder))
    conversion, original, missing = _nets(folder, options)
    run = contents.report.run
    material = Material(
        title=Path(folder).resolve().name,
        folder=str(folder),
        plan=contents.plan,
        report=contents.report,
        recipe=contents.recipe,
        data=contents.record.data,
        files=contents.record.files,
        machine=machine(),
        original=run.original if run else None,
        converted=run.evaluation if run else None,
        missing=missing,
    )
    if data is not None and conversion is not None and original is not None:
        compared = answer_comparison(
            conversion,
            original,
            data,
            options,
            limit=limit,
            seed=seed,
            pictures=pictures,
            progress=as_progress(progress),
        )
        material = replace(material, disagreement=compared.disagreement)
        if compared.disagreement.labeled:
            material = replace(material, original=compared.original, converted=compared.converted)
    return page_of(material)


def machine() -> dict[str, str]:
    """The processor, and the versions of what makes a page."""
    versions = {"kdna": __version__, "torch": torch.__version__, "Python": platform.python_version()}
    return {"processor": cpu_name(), **versions}


def _nets(folder: str | Path, options: ReportOptions) -> tuple[Conversion | None, nn.Module | None, str | None]:
    """The conversion, the original, and why one is not there: the parts that need it are then left out."""
    try:
        conversion = opened(folder, options)
    except FolderError as error:
        if error.code not in ("KD607", "KD611"):
            raise
        return None, None, str(error)
    original = original_from(conversion, checkpoint_of(options))
    missing = "the original's weights are not available; pass --checkpoint FILE" if original is None else None
    return conversion, original, missing
