"""`onnx-int8`: the ONNX graph with 8-bit weights and arithmetic, quantized by onnxruntime on the user's images."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ...core.errors import ModelError, cause
from .eight_bits import TOLERANCE, calibration_images, quality, speed_up
from .export import Export, ExportOptions, ExportSource
from .onnx import Session, record_in_graph, run_graph, runs_on, write_graph

FLOAT = "float.onnx"  # the graph before quantization, in the driver's temporary folder
_CPU = Path("/proc/cpuinfo")


class OnnxInt8(Export):
    """One ONNX file in QDQ form: weights per output channel, activations of 8 bits without sign."""

    name: ClassVar[str] = "onnx-int8"
    suffix: ClassVar[str] = "-int8.onnx"
    takes: ClassVar[frozenset[str]] = frozenset({"opset", "dynamic", "normalize", "input_names", "factored"})
    calibrated: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra: ClassVar[str] = "onnx"

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write. Raises DataError KD405 without images, too."""
        images = calibration_images(source)
        write_graph(source, place.with_name(FLOAT))
        quantize(place.with_name(FLOAT), place, images, source.options.input_names[0])
        return f"{runs_on(source)}; calibrated on {len(images)} images"

    def run(self, source: ExportSource, place: Path, images: Tensor) -> dict[str, Tensor]:
        """As Export.run, by onnxruntime on the CPU."""
        return run_graph(source, place, images)

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance."""
        return TOLERANCE

    def record(self, place: Path, facts: Mapping[str, str]) -> None:
        """As Export.record."""
        record_in_graph(place, facts)

    def measures(self, source: ExportSource, place: Path) -> Mapping[str, float]:
        """As Export.measures: the outputs compared with torch's, and the speed compared with the graph of 32 bits."""
        name = source.options.input_names[0]
        quantized, full = Session(place, name), Session(place.with_name(FLOAT), name)
        return quality(source, quantized) | {"speed_up": speed_up(full, quantized, source)}


def quantize(graph: Path, place: Path, images: Tensor, name: str) -> None:
    """Write an ONNX graph with 8-bit weights and arithmetic, calibrated on images that its input `name` takes.

    Raises ModelError KD312 if onnxruntime cannot quantize the graph.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The images, one by one."""

        def __init__(self) -> None:
            self.images = iter(images.split(1))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {name: image.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        try:
            quant_pre_process(str(graph), str(ready))
            quantize_static(
                ready,
                place,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=_saturates(),
            )
        except Exception as error:  # onnxruntime raises errors of many kinds
            raise ModelError("KD312", f"onnxruntime cannot quantize the graph: {cause(error)}") from error


def _saturates() -> bool:
    """Whether sums of 8-bit products overflow 16 bits on this machine: x86 without the instructions VNNI."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and _CPU.exists() and "vnni" not in _CPU.read_text()
