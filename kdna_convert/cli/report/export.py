"""What `kdna export` wrote: a line a form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .figures import size

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...stages.export.onnx import Exported


def onnx_line(exported: Exported) -> str:
    answers = f"onnxruntime's answers are within {exported.difference:.0e} of torch's"
    return f"{exported.file}: {size(exported.bytes)}, takes any batch; {answers}"


def merged_line(file: Path, bytes_: int) -> str:
    return f"{file}: {size(bytes_)}, loads into the untouched net"
