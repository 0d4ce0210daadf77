"""Export: write a converted net in the format of another program.

`EXPORTS` is the table, export.py the interface of a form, and write.py what all forms have in common.
"""

from __future__ import annotations

from .compact import OnnxCompact
from .coreml import CoreMl
from .executorch import ExecuTorch
from .export import Export, Exported, ExportOptions, ExportSource
from .litert import LiteRt
from .merged import Merged
from .ncnn import Ncnn
from .onnx import Onnx
from .onnx_int8 import OnnxInt8
from .openvino import OpenVino
from .openvino_int8 import OpenVinoInt8
from .pt2 import Pt2
from .timm_folder import TimmFolder
from .web import Web
from .write import write_export

__all__ = ["EXPORTS", "Export", "ExportOptions", "ExportSource", "Exported", "write_export"]

EXPORTS: dict[str, Export] = {
    export.name: export
    for export in (
        Merged(),
        TimmFolder(),
        Onnx(),
        OnnxCompact(),
        OnnxInt8(),
        OpenVino(),
        OpenVinoInt8(),
        Pt2(),
        Web(),
        ExecuTorch(),
        LiteRt(),
        Ncnn(),
        CoreMl(),
    )
}
