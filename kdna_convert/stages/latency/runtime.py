"""The interface of a runtime, whose time a plan can be made for, and how it is timed."""

from __future__ import annotations

import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ...core.errors import ModelError
from ..export.export import ExportOptions, GraphSource
from ..export.graph_outputs import graph_outputs
from ..export.onnx import write_graph
from .layer_form import LayerForm
from .layer_graph import layer_graph

Run = Callable[[], object]
# How long and how often something is run to be timed.
SECONDS, LEAST, WARMUP = 0.06, 7, 2


class Runtime(Protocol):
    """The interface of a runtime, to derive from. Its laws are in tests/stages/latency/test_runtime_laws.py.

    Attributes:
        name: The runtime's name on the command line.
        dtypes: The arithmetic that it can be timed in.
        needs: The libraries that it imports.
        extra: The extra of kdna that installs them.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    needs: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""

    @abstractmethod
    def version(self) -> str:
        """The version of the library."""

    @abstractmethod
    def load_layer(self, form: LayerForm, threads: int, dtype: str) -> Run:
        """A layer ready to run on one batch of noise."""

    @abstractmethod
    def load_net(self, net: nn.Module, example: Tensor, threads: int) -> Run:
        """A net in eval mode, ready to run on the example. Raises ModelError KD312 for a net that it cannot run."""


class GraphRuntime(Runtime, Protocol):
    """A runtime that takes ONNX graphs."""

    @abstractmethod
    def load(self, graph: bytes, images: Tensor, threads: int) -> Run:
        """A graph, whose input is `images`, ready to run."""

    def load_layer(self, form: LayerForm, threads: int, dtype: str) -> Run:
        """As Runtime.load_layer."""
        return self.load(layer_graph(form, dtype), torch.randn(form.input), threads)

    def load_net(self, net: nn.Module, example: Tensor, threads: int) -> Run:
        """As Runtime.load_net."""
        options = ExportOptions(dynamic=())
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "net.onnx"
            try:
                write_graph(GraphSource(net, example, tuple(graph_outputs(net, example)), options), place)
            except ModelError as error:
                why = error.message.partition("; pass")[0]
                raise ModelError("KD312", f"{self.name} cannot run the net: {why}; use --runtime torch") from error
            return self.load(place.read_bytes(), example, threads)


def nanoseconds(run: Run) -> int:
    """The time of a call: the lower quartile, since other programs only make calls longer."""
    for _ in range(WARMUP):
        run()
    times: list[int] = []
    while len(times) < LEAST or sum(times) < 1e9 * SECONDS:
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return sorted(times)[len(times) // 4]
