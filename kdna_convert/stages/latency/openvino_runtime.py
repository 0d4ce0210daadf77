"""`openvino`: Intel's runtime, on the CPU, in 32 bits."""

from __future__ import annotations

from importlib import metadata
from typing import ClassVar

from torch import Tensor

from ...core.signal_stack import kept_signal_stack
from .runtime import GraphRuntime, Run


class OpenVinoRuntime(GraphRuntime):
    """OpenVINO with the arithmetic of the graph: without the hint, some CPUs compute in bfloat16."""

    name: ClassVar[str] = "openvino"
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "openvino")
    extra: ClassVar[str] = "openvino"

    def version(self) -> str:
        """As Runtime.version."""
        return metadata.version("openvino")

    def load(self, graph: bytes, images: Tensor, threads: int) -> Run:
        """As GraphRuntime.load."""
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        with kept_signal_stack():
            core = openvino.Core()
            request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
        array = images.numpy()
        return lambda: request.infer([array])
