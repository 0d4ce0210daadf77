"""`onnx-compact`: an ONNX graph that holds what the folder stores, and computes the weights when it is loaded."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from .compact_graph import compact_graph
from .compact_weights import compact_weights, file_names
from .export import ExportSource
from .onnx import Onnx, runs_on, write_graph
from .source import Normalizing


@dataclass(frozen=True)
class OnnxCompact(Onnx):
    """One ONNX file with factors, codebooks, indices, and integers with their steps, in standard operators.

    onnxruntime computes the weights once, when it loads the file, and then runs the graph of `onnx`.
    """

    name: ClassVar[str] = "onnx-compact"
    suffix: ClassVar[str] = "-compact.onnx"
    takes: ClassVar[frozenset[str]] = Onnx.takes - {"fp16", "factored"}

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        import onnx

        net = copy.deepcopy(source.net)  # the check compares with the source's own
        inside = isinstance(net, Normalizing)
        compact_weights(net.get_submodule("net" if inside else ""), source.conversion)
        outer = nn.Sequential(net)  # a tensor of the outermost module could have the name of a computed value
        write_graph(replace(source, net=outer), place, optimize=False)
        names = file_names(outer, "0.net." if inside else "0.")
        place.write_bytes(compact_graph(onnx.load(str(place)), names).SerializeToString())
        return f"{runs_on(source)}; weights are computed when the file is loaded"
