"""The verb `report`: a converted folder as a page in HTML."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import __version__
from ..core.comparison import Comparison
from ..core.errors import FolderError
from ..core.machine import cpu_name
from ..core.measurements import Curve
from ..core.specs import Plan
from ..html import BENCH_PARTS, COMPARISON_PARTS, CURVE_PARTS, PLAN_PARTS, Material, Page, page_of
from ..network.folder import Conversion
from ..network.folder.contents import read_contents
from ..network.folder.record import read_record
from ..network.folder.report import Report
from ..stages.evaluate.timing import Timing
from .keywords import ReportOptions, check_keywords
from .nets import checkpoint_of, opened, original_from

if TYPE_CHECKING:
    from typing_extensions import Unpack


def report(net: str | Path | Conversion, /, **options: Unpack[ReportOptions]) -> Page:
    """A page of a converted net: what came out, its layers, where accuracy went, how it was made.

    Code that a folder names is run only with `trust_code`, or after `kdna trust`. Without, and without the original,
    the parts that need them are left out and say so.

    Args:
        net: a folder that `convert` or `run` wrote, or a conversion.
        **options: model, trust_code and checkpoint, as for `evaluate`.

    Returns:
        The page, one HTML file that loads nothing. `save(path)` writes it; a notebook shows it.

    Raises:
        FolderError: KD602, KD603 or KD605, as `load`.
    """
    check_keywords("report", options, ReportOptions)
    if isinstance(net, Conversion):
        title = net.plan.model.name
        return _page(Material(title, recipe=net.recipe, data=net.data, machine=machine()), net.plan, net.report)
    contents = read_contents(Path(net))
    _conversion, _original, missing = _nets(net, options)
    record = contents.record
    material = Material(
        title=Path(net).resolve().name,
        folder=str(net),
        recipe=contents.recipe,
        data=record.data,
        files=record.files,
        machine=machine(),
        missing=missing,
    )
    return _page(material, contents.plan, contents.report)


def report_of_folder(folder: Path, conversion: Conversion) -> Page:
    """The page of a folder that was just written of this conversion."""
    material = Material(folder.resolve().name, str(folder), recipe=conversion.recipe, data=conversion.data)
    material = replace(material, files=read_record(folder).files, machine=machine())
    return _page(material, conversion.plan, conversion.report)


def _page(material: Material, plan: Plan, made: Report) -> Page:
    """The page with what a plan and a report hold."""
    original, converted = (made.run.original, made.run.evaluation) if made.run else (None, None)
    known = replace(material, plan=plan, report=made, command=made.command, curve=made.curve)
    return page_of(replace(known, original=original, converted=converted))


def page_of_result(result: object, curve: Curve | None = None, command: str | None = None) -> Page:
    """The page of what a verb returned: a Conversion, Plan, Curve, Comparison or timings.

    `curve` is that of a plan, `command` the one that made the result.

    Raises:
        TypeError: for another object.
    """
    if isinstance(result, Conversion):
        return report(result)
    known = Material("", machine=machine(), command=command)
    if isinstance(result, Plan):
        return page_of(replace(known, title=f"Plan of {result.model.name}", plan=result, curve=curve), PLAN_PARTS)
    if isinstance(result, Curve):
        return page_of(replace(known, title="Budgets", curve=result), CURVE_PARTS)
    if isinstance(result, Comparison):
        return page_of(replace(known, title=f"{result.model} compared", comparison=result), COMPARISON_PARTS)
    if isinstance(result, tuple | list) and result and all(isinstance(each, Timing) for each in result):
        return page_of(replace(known, title="Speed", timings=tuple(result)), BENCH_PARTS)
    raise TypeError(f"there is no page of {type(result).__name__}")


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
