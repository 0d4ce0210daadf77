"""Export: write a converted net in the format of another program. `EXPORTS` is the table, export.py the interface."""

from __future__ import annotations

from .export import Export, Exported
from .merged import Merged
from .onnx import Onnx

__all__ = ["EXPORTS", "Export", "Exported"]

EXPORTS: dict[str, Export] = {export.name: export for export in (Merged(), Onnx())}
