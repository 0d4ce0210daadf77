"""Latency: the time of a layer in each form, dense and as a chain, by the runtime that will run the net.

`RUNTIMES` is the table, runtime.py the interface. layer_form.py says what is timed, layer_graph.py builds it,
latency_file.py keeps what was measured, and latencies.py gives the choices of a plan their times.
"""

from __future__ import annotations

from .latency_file import Clock
from .onnx_runtime import OnnxRuntime
from .openvino_runtime import OpenVinoRuntime
from .runtime import Runtime
from .torch_runtime import TorchRuntime

__all__ = ["RUNTIMES", "Clock", "Runtime"]

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntime(), OpenVinoRuntime(), TorchRuntime())}
