"""`pt2`: a program of torch.export, which torch loads without the net's code, and compiles."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ...core.errors import ModelError, cause
from .export import Export, ExportSource
from .graph_outputs import named_tensors
from .onnx import dynamic_axes, runs_on, static_routers


class Pt2(Export):
    """One .pt2 file. Sizes that are not dynamic are those of the example."""

    name: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"
    takes: ClassVar[frozenset[str]] = frozenset({"dynamic", "fp16", "normalize", "factored"})

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        buffer = io.BytesIO()  # torch warns of paths that do not end in .pt2
        torch.export.save(traced(source), buffer)
        place.write_bytes(buffer.getvalue())
        return runs_on(source)

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, in torch."""
        net = torch.export.load(io.BytesIO(place.read_bytes())).module()
        with torch.no_grad():
            return named_tensors(net(images))

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'torch.export.load("{path}").module()'


def traced(source: ExportSource) -> ExportedProgram:
    """The source's net, which gets static routers, as a program.

    Raises ModelError KD312 if torch.export cannot trace it for the dynamic axes of the options.
    """
    dynamic = source.options.dynamic
    try:
        axes = dict.fromkeys(dynamic_axes(dynamic), Dim.DYNAMIC)  # a named Dim must say its bounds
        return torch.export.export(static_routers(source.net), (source.example,), dynamic_shapes=(axes,))
    except Exception as error:  # the net is user code and may raise anything
        sizes = f" for any {', '.join(dynamic)}" if dynamic else ""
        raise ModelError("KD312", f"torch.export cannot trace the net{sizes}: {cause(error)}") from error


def refused_operators(program: ExportedProgram, message: str) -> str:
    """The operators that a converter's message names, each with the layer of the program that runs it; or ""."""
    found = {}
    for node in (*program.graph.nodes, *program.run_decompositions().graph.nodes):
        if node.op == "call_function" and str(node.target) in message:
            path = [*node.meta.get("nn_module_stack", {"": ("", None)}).values()][-1][0]
            found[f"{node.target} of layer {path}" if path else str(node.target)] = True
    return ", ".join(found)
