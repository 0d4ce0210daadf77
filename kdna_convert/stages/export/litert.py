"""`litert`: a .tflite file of LiteRT, once TensorFlow Lite, written by litert-torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import ModelError, cause
from .export import Export, ExportSource
from .onnx import static_routers
from .pt2 import refused_operators, traced
from .quiet import quiet


class LiteRt(Export):
    """One .tflite file for one image, channels first as in torch."""

    name: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    fixed: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"normalize", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("litert_torch", "ai_edge_litert")
    extra: ClassVar[str] = "litert"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        with quiet():
            import litert_torch

            try:
                litert_torch.convert(static_routers(source.net), (source.example,)).export(str(place))
            except Exception as error:  # litert-torch's own classes
                why = refused_operators(traced(source), str(error)) or cause(error)
                raise ModelError("KD312", f"litert-torch cannot convert the net: {why}") from error
        return "takes one image of this size, channels first"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by LiteRT's interpreter."""
        with quiet():
            from ai_edge_litert.interpreter import Interpreter

            runner: Any = Interpreter(str(place)).get_signature_runner()
            returned = runner(**dict.fromkeys(runner.get_input_details(), images.numpy()))
        return {name: torch.from_numpy(returned[f"output_{number}"]) for number, name in enumerate(source.outputs)}

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'ai_edge_litert.interpreter.Interpreter("{path}").get_signature_runner()'
