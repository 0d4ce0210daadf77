"""The verb `report`: a converted folder as a page in HTML."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import __version__
from ..core.errors import FolderError
from ..core.machine import cpu_name
from ..core.specs import Plan
from ..html import Material, Page, page_of
from ..network.folder import Conversion
from ..network.folder.contents import read_contents
from .keywords import ReportOptions, check_keywords
from .layer_pictures import family_pictures, kernel_pictures
from .layer_similarity import weight_similarity
from .nets import checkpoint_of, opened, original_from

if TYPE_CHECKING:
    from typing_extensions import Unpack


def report(folder: str | Path, **options: Unpack[ReportOptions]) -> Page:
    """A page of a converted folder: what came out, its layers, where accuracy went, how it was made.

    Code that the folder names is run only with `trust_code`, or after `kdna trust`. Without, and without the original,
    the parts that need them are left out and say so.

    Args:
        folder: a folder that `convert` or `run` wrote.
        **options: model, trust_code and checkpoint, as for `evaluate`.

    Returns:
        The page, one HTML file that loads nothing. `save(path)` writes it; a notebook shows it.

    Raises:
        FolderError: KD602, KD603 or KD605, as `load`.
    """
    check_keywords("report", options, ReportOptions)
    contents = read_contents(Path(folder))
    conversion, original, missing = _nets(folder, options)
    run = contents.report.run
    return page_of(
        Material(
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
            families=family_pictures(conversion, original) if conversion is not None else (),
            **_compared(conversion, original, contents.plan, missing),
        )
    )


def _compared(
    conversion: Conversion | None, original: nn.Module | None, plan: Plan, missing: str | None
) -> dict[str, Any]:
    """The fields of a Material on the similarity of layers: of the original, or else of the converted net."""
    net, whose = original, "the original"
    if net is None and conversion is not None:
        net, whose = conversion.model, "the converted net"
    if net is None:
        return {"compared": f"The layers were not compared: {missing}."}
    analysis, compared = weight_similarity(net, plan, whose)
    kernels = {} if analysis is None else kernel_pictures(net, analysis)
    return {"analysis": analysis, "compared": compared, "kernels": kernels}


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
