"""`openvino`: OpenVINO's IR with weights of 16 bits, run by its runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import ModelError, cause
from ...core.signal_stack import kept_signal_stack
from .export import Export, ExportOptions, ExportSource
from .onnx import dynamic_axes, runs_on
from .pt2 import refused_operators, traced

MODEL = "model.xml"


class OpenVino(Export):
    """A folder with model.xml and model.bin. The weights have 16 bits; the runtime chooses those of the arithmetic."""

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = "-openvino"
    folder: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"dynamic", "normalize", "input_names", "factored"})
    needs: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write."""
        import openvino

        openvino.save_model(converted(source), place / MODEL, compress_to_fp16=True)
        return f"{runs_on(source)}; weights of 16 bits"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by OpenVINO on the CPU with arithmetic of 32 bits."""
        try:
            return compiled(place / MODEL)(images)
        except RuntimeError as error:
            why = f"OpenVINO does not run it on an input of shape {tuple(images.shape)}: {cause(error)}"
            raise ModelError("KD312", f"{why}; nothing was written") from error

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance, for weights of 16 bits."""
        return 1e-2

    def usage(self, path: Path) -> str:
        """As Export.usage."""
        return f'openvino.compile_model("{path / MODEL}", "CPU")'


def converted(source: ExportSource) -> Any:
    """The source's net as a model of OpenVINO. Axes that are not dynamic have the size of the example.

    Raises ModelError KD312 for an operator that OpenVINO does not convert.
    """
    import openvino

    program = traced(source)
    try:
        model = openvino.convert_model(program)
    except Exception as error:  # OpenVINO's own classes
        why = refused_operators(program, str(error)) or _reason(error)
        raise ModelError("KD312", f"OpenVINO cannot convert the net: {why}") from error
    places = dynamic_axes(source.options.dynamic)
    model.reshape([-1 if axis in places else size for axis, size in enumerate(source.example.shape)])
    names = [*source.options.input_names, *source.outputs]
    for port, name in zip([*model.inputs, *model.outputs], names, strict=True):
        port.get_tensor().set_names({name})
    return model


def compiled(model: Any, precision: str = "f32") -> Callable[[Tensor], dict[str, Tensor]]:
    """A model, or the path of its file, ready to run on the CPU with as many threads as torch has.

    `precision` is f32 or bf16. Without the hint, a CPU with instructions for bfloat16 computes in it.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with kept_signal_stack():
        net = openvino.Core().compile_model(model, "CPU", settings)

    def run(images: Tensor) -> dict[str, Tensor]:
        returned = net(images.numpy())
        return {port.get_any_name(): torch.from_numpy(returned[port].copy()) for port in net.outputs}

    return run


def _reason(error: Exception) -> str:
    """The last line with a fact in OpenVINO's message."""
    facts = [line.removeprefix("-- ") for line in str(error).splitlines() if line.startswith("-- ")]
    return facts[-1] if facts else cause(error)
