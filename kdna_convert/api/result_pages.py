"""The page of what a verb returned, and what a page knows of a folder before any net is built."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import torch

from .. import __version__
from ..core.comparison import Comparison
from ..core.machine import cpu_name
from ..core.measurements import Analysis, Curve
from ..core.specs import Plan
from ..core.sweep_result import SweepResult
from ..html import (
    ANALYSIS_PARTS,
    BENCH_PARTS,
    COMPARISON_PARTS,
    CURVE_PARTS,
    PLAN_PARTS,
    SWEEP_PARTS,
    Material,
    Page,
    page_of,
)
from ..network.folder import Conversion
from ..network.folder.contents import read_contents
from ..network.folder.report import Report
from ..stages.evaluate.timing import Timing


def page_of_result(
    result: object,
    curve: Curve | None = None,
    command: str | None = None,
    repairs: bool | None = None,
    name: str | None = None,
) -> Page:
    """The page of what a verb returned: a Conversion, Analysis, Plan, Curve, Comparison, SweepResult or timings.

    A Material of an analysis has pictures of its kernels, too. `curve` is that of a plan, `command` the one that made
    the result. `repairs` is that of Material. `name` is the net's, where the result does not say it.

    Raises:
        TypeError: for another object.
    """
    known, of_net = Material("", machine=machine(), command=command, repairs=repairs), f" of {name}" if name else ""
    if isinstance(result, Conversion):
        return page_of(material_of(result))
    if isinstance(result, Material):
        return page_of(replace(result, command=command), ANALYSIS_PARTS)
    if isinstance(result, Analysis):
        return page_of(replace(known, title=f"Layers{of_net}", analysis=result), ANALYSIS_PARTS)
    if isinstance(result, Plan):
        return page_of(replace(known, title=f"Plan of {result.model.name}", plan=result, curve=curve), PLAN_PARTS)
    if isinstance(result, Curve):
        return page_of(replace(known, title=f"Budgets{of_net}", curve=result), CURVE_PARTS)
    if isinstance(result, Comparison):
        return page_of(replace(known, title=f"{result.model} compared", comparison=result), COMPARISON_PARTS)
    if isinstance(result, SweepResult):
        return page_of(replace(known, title=f"Sweep of {result.grid}", sweep=result), SWEEP_PARTS)
    if isinstance(result, tuple | list) and result and all(isinstance(each, Timing) for each in result):
        return page_of(replace(known, title=f"Speed{of_net}", timings=tuple(result)), BENCH_PARTS)
    raise TypeError(f"there is no page of {type(result).__name__}")


def material_of(conversion: Conversion) -> Material:
    """What a conversion holds."""
    known = Material(conversion.plan.model.name, recipe=conversion.recipe, data=conversion.data, machine=machine())
    return _with_report(known, conversion.plan, conversion.report)


def material_of_folder(folder: Path) -> Material:
    """What a converted folder holds. Nothing that it names is built or run. Raises FolderError as `load`."""
    contents = read_contents(folder)
    record = contents.record
    known = Material(folder.resolve().name, str(folder), recipe=contents.recipe, data=record.data, machine=machine())
    return _with_report(replace(known, files=record.files), contents.plan, contents.report)


def _with_report(known: Material, plan: Plan, made: Report) -> Material:
    original, converted = (made.run.original, made.run.evaluation) if made.run else (None, None)
    known = replace(known, plan=plan, report=made, command=made.command, curve=made.curve)
    return replace(known, original=original, converted=converted)


def machine() -> dict[str, str]:
    """The processor, and the versions of what makes a page."""
    versions = {"kdna": __version__, "torch": torch.__version__, "Python": platform.python_version()}
    return {"processor": cpu_name(), **versions}
