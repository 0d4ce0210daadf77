"""`onnx-compact`: an ONNX graph that holds what the folder stores, and computes the weights when it is loaded."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from .compact_graph import compact_graph
from .compact_weights import compact_weights, file_names, halved
from .export import ExportOptions, ExportSource
from .onnx import Onnx, runs_on, write_graph
from .source import InHalf, Normalizing, source_of


@dataclass(frozen=True)
class OnnxCompact(Onnx):
    """One ONNX file with factors, codebooks, indices, and integers with their steps, in standard operators.

    onnxruntime computes the weights once, when it loads the file, and then runs the graph of `onnx`. With `fp16`,
    weights are computed in 32 bits and rounded, and floats are stored in 16.
    """

    name: ClassVar[str] = "onnx-compact"
    suffix: ClassVar[str] = "-compact.onnx"
    takes: ClassVar[frozenset[str]] = Onnx.takes - {"factored"}

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        import onnx

        half = source.options.fp16
        net = _rounded(source) if half else copy.deepcopy(source.net)  # the check compares with the source's own
        path = "net" if isinstance(net, Normalizing) else ""
        compact_weights(net.get_submodule(path), source.conversion, half=half)
        inner = InHalf(net).eval() if half else net
        outer = nn.Sequential(inner)  # a tensor of the outermost module could have the name of a computed value
        write_graph(replace(source, net=outer), place, optimize=False)
        names = file_names(outer, ".".join(["0", *(["net"] if half else []), *([path] if path else []), ""]))
        place.write_bytes(compact_graph(onnx.load(str(place)), names).SerializeToString())
        return f"{runs_on(source)}; weights are computed when the file is loaded"

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance. In 16 bits, factors are rounded before the weights are computed from them."""
        return 3e-2 if options.fp16 else super().tolerance(options)


def _rounded(source: ExportSource) -> nn.Module:
    """The source's net, rounded to 16 bits where weights are not computed and not folded."""
    exact = replace(source.options, fp16=False)
    return halved(source_of(source.conversion, exact, None, graph=False).net)
