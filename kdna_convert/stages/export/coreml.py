"""`coreml`: an .mlpackage of Core ML for Apple's devices, written by coremltools. Only macOS runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import ModelError, cause
from .export import Export, ExportOptions, ExportSource
from .pt2 import refused_operators, traced
from .quiet import quiet

PACKAGE = "net.mlpackage"


class CoreMl(Export):
    """A folder with net.mlpackage, for one image. Weights and arithmetic have 16 bits, as is Core ML's default."""

    name: ClassVar[str] = "coreml"
    suffix: ClassVar[str] = "-coreml"
    folder: ClassVar[bool] = True
    fixed: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"normalize", "input_names", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("coremltools",)
    extra: ClassVar[str] = "coreml"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        program = traced(source)
        with quiet():
            import coremltools

            tensor = coremltools.TensorType
            try:
                model = coremltools.convert(
                    program.run_decompositions({}),
                    inputs=[tensor(name=source.options.input_names[0], shape=tuple(source.example.shape))],
                    outputs=[tensor(name=name) for name in source.outputs],
                    minimum_deployment_target=coremltools.target.iOS16,
                    skip_model_load=True,
                )
            except Exception as error:  # coremltools' own classes
                why = refused_operators(program, str(error)) or cause(error)
                raise ModelError("KD312", f"coremltools cannot convert the net: {why}") from error
            model.save(str(place / PACKAGE))
        return "takes one image of this size; 16 bits"

    def absent(self) -> str | None:
        """As Export.absent."""
        return None if sys.platform == "darwin" else "Core ML runs on macOS only"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by Core ML."""
        with quiet():
            import coremltools

            model: Any = coremltools.models.MLModel(str(place / PACKAGE))
            returned = model.predict({source.options.input_names[0]: images.numpy()})
        return {name: torch.from_numpy(returned[name]) for name in source.outputs}

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance, for arithmetic of 16 bits."""
        return 1e-2
