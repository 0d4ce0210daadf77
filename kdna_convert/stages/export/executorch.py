"""`executorch`: a program of ExecuTorch, lowered to XNNPACK for the CPUs of phones and boards."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ...core.errors import ModelError, cause
from .export import Export, ExportSource
from .pt2 import refused_operators, traced
from .quiet import quiet


class ExecuTorch(Export):
    """One .pte file for one image. Operators that XNNPACK lacks run in ExecuTorch's portable kernels."""

    name: ClassVar[str] = "executorch"
    suffix: ClassVar[str] = ".pte"
    fixed: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"normalize", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("executorch",)
    extra: ClassVar[str] = "executorch"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        program = traced(source)
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            try:
                lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
            except Exception as error:  # ExecuTorch's own classes
                why = refused_operators(program, str(error)) or cause(error)
                raise ModelError("KD312", f"ExecuTorch cannot convert the net: {why}") from error
        place.write_bytes(lowered.buffer)
        return "takes one image of this size; runs by XNNPACK"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by ExecuTorch's runtime with XNNPACK."""
        with quiet():
            from executorch.runtime import Runtime

            try:
                program = Runtime.get().load_program(place.read_bytes())
                returned = program.load_method("forward").execute([images])
            except RuntimeError as error:
                raise ModelError("KD312", f"ExecuTorch does not run the program: {cause(error)}") from error
        return {name: each.clone() for name, each in zip(source.outputs, returned, strict=True)}

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'executorch.runtime.Runtime.get().load_program("{path}").load_method("forward").execute([image])'
