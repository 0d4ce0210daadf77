"""What `kdna export` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figures import size

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...stages.export import Exported


def export_line(exported: Exported) -> str:
    return f"{exported.file}: {size(exported.bytes)}, {exported.note}"
