"""What `kdna export` and `kdna diff` wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .figures import count, percent, size

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Update
    from ...stages.export import Exported


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


def _measure(name: str, value: float) -> str:
    title, text = _MEASURES.get(name, (name.replace("_", " "), lambda value: f"{value:.4g}"))
    return f"{title}: {text(value)}"


def update_line(update: Update) -> str:
    """The size of an update beside that of the tensors it replaces."""
    tensors = f"{update.changed} tensors changed, {update.equal} are equal"
    return f"{update.file}: {size(update.bytes)} in place of {size(update.whole)}; {tensors}"
