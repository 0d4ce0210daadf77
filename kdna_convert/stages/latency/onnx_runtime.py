"""`onnxruntime`: Microsoft's runtime of ONNX graphs, on the CPU."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

from torch import Tensor

from .runtime import GraphRuntime, Run


class OnnxRuntime(GraphRuntime):
    """onnxruntime with all of its graph optimizations."""

    name: ClassVar[str] = "onnxruntime"
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra: ClassVar[str] = "onnx"

    def version(self) -> str:
        """As Runtime.version."""
        return metadata.version("onnxruntime")

    def load(self, graph: bytes, images: Tensor, threads: int) -> Run:
        """As GraphRuntime.load."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: images.numpy()}
        return lambda: session.run(None, feed)
