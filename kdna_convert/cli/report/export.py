"""What `kdna export` and `kdna diff` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figures import size

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Update
    from ...stages.export import Exported


def export_lines(exported: Exported) -> list[str]:
    """The path and size, the check, and what the form measured."""
    lines = [f"{exported.file}: {size(exported.bytes)}, {exported.note}"]
    if exported.difference is None:
        lines.append(f"compared with torch: {exported.checked}")
    else:
        lines.append(f"largest difference from torch: {exported.difference:.0e} of the output, on {exported.checked}")
    return [*lines, *(f"{name}: {value:.4g}" for name, value in exported.measures.items())]


def update_line(update: Update) -> str:
    """The size of an update beside that of the tensors it replaces."""
    tensors = f"{update.changed} tensors changed, {update.equal} are equal"
    return f"{update.file}: {size(update.bytes)} in place of {size(update.whole)}; {tensors}"
