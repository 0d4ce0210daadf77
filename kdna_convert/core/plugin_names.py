"""The names of the plug-ins as types, for code that must not import the tables, since these import torch.

tests/test_tables.py compares each with the keys of its table.
"""

from __future__ import annotations

from typing import Literal

SchemeName = Literal[
    "cp", "separable", "basis", "tucker", "output", "atoms", "warehouse", "codebook", "lowrank", "kerneldna"
]
RoutingName = Literal["se", "omni", "cond", "dyconv", "partial", "context", "dymn", "warehouse", "frequency"]
CodecName = Literal["fp16", "bf16", "int8", "int4", "entropy"]
StepName = Literal["refit", "correct", "reestimate", "reconstruct"]
MetricName = Literal["explained", "angles", "cka", "cosine"]
TaskName = Literal["classify", "binary", "regress", "embed", "image", "segment", "detect", "sequence", "raw"]
RuntimeName = Literal["onnxruntime", "openvino", "torch"]
# What a device computes in, not a plug-in: the options name it before pydantic is imported.
ArithmeticName = Literal["int8", "fp32"]
# How an image becomes an input, not plug-ins either.
CropName = Literal["center", "middle", "random", "squash", "border"]
InterpolationName = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ExportName = Literal[
    "merged",
    "timm",
    "onnx",
    "onnx-compact",
    "onnx-int8",
    "openvino",
    "openvino-int8",
    "pt2",
    "web",
    "executorch",
    "litert",
    "ncnn",
    "coreml",
]
# Of these, the form that runs fastest on this machine.
ExportChoice = Literal[ExportName, "fastest"]
