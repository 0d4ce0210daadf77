"""What `kdna export` and `kdna diff` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count, percent, size
from .figures import grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Update
    from ...stages.export import Exported
    from ...stages.export.fastest import Fastest


# What forms measure: a title, and the value as text.
_MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "agreement": ("the same top class as torch", lambda value: percent(value, 2)),
    "relative_error": ("error from torch, |z - z0|^2 / |z0|^2", lambda value: percent(value, 2)),
    "held_out": ("measured on images that did not calibrate", lambda value: count(round(value))),
    "speed_up": ("times as fast as in 32 bits", lambda value: f"{value:.2f}"),
}


def export_lines(exported: Exported) -> list[str]:
    """The path and size, the check, and what the form measured."""
    lines = [f"{exported.file}: {size(exported.bytes)}, {exported.note}"]
    if exported.difference is None:
        lines.append(f"compared with torch: {exported.checked}")
    else:
        lines.append(f"largest difference from torch: {exported.difference:.0e} of the output, on {exported.checked}")
    return [*lines, *(_measure(name, value) for name, value in exported.measures.items())]


def exported_report(place: Path) -> RenderableType:
    """What `kdna run` exported, by the record of the export."""
    record = place / "export.json" if place.is_dir() else place.with_name(f"{place.name}.json")
    plain = json.loads(record.read_text(encoding="utf-8"))
    from ...stages.export import Exported
    from ...stages.export.fastest import Fastest, FormTimes

    if "rows" in plain:
        rows = tuple(FormTimes(**row) for row in plain.pop("rows"))
        return fastest_table(Fastest(**plain, rows=rows))
    names = [each.name for each in fields(Exported)]
    return Group(*export_lines(Exported(**{name: plain[name] for name in names})))


def fastest_table(made: Fastest) -> RenderableType:
    """One row for each form that was tried, and which was kept."""
    table = grid("form", ">ms", ">speed-up", ">agreement", ">bytes", "")
    for row in made.rows:
        if row.ms is None or row.ratio is None or row.agreement is None or row.bytes is None:
            table.add_row(row.name, "-", "-", "-", "-", row.why or "")
            continue
        why = "kept" if row.name == made.form else row.why or ""
        table.add_row(row.name, f"{row.ms:.2f}", f"{row.ratio:.2f}×", percent(row.agreement), size(row.bytes), why)
    how = f"one image, medians of runs that take turns ({made.machine}); agreement: with torch, on held-out images"
    return Group(table, "", f"{made.file}: {made.form}", note(how))


def _measure(name: str, value: float) -> str:
    title, text = _MEASURES.get(name, (name.replace("_", " "), lambda value: f"{value:.4g}"))
    return f"{title}: {text(value)}"


def update_line(update: Update) -> str:
    """The size of an update beside that of the tensors it replaces."""
    tensors = f"{update.changed} tensors changed, {update.equal} are equal"
    return f"{update.file}: {size(update.bytes)} in place of {size(update.whole)}; {tensors}"
