"""`openvino-int8`: OpenVINO's IR with 8-bit weights and arithmetic, quantized by nncf on the user's images."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ...core.errors import ModelError, cause
from ...core.signal_stack import kept_signal_stack
from .eight_bits import TOLERANCE, calibration_images, quality, speed_up
from .export import ExportOptions, ExportSource
from .onnx import runs_on
from .openvino import MODEL, OpenVino, compiled, converted


class OpenVinoInt8(OpenVino):
    """A folder with model.xml and model.bin: weights per output channel, activations with symmetric ranges."""

    name: ClassVar[str] = "openvino-int8"
    suffix: ClassVar[str] = "-openvino-int8"
    calibrated: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("openvino", "nncf")

    def write(self, source: ExportSource, place: Path) -> str:
        """As Export.write. Raises DataError KD405 without images, too."""
        import openvino

        images = calibration_images(source)
        openvino.save_model(quantized(converted(source), images), place / MODEL)
        return f"{runs_on(source)}; calibrated on {len(images)} images"

    def tolerance(self, options: ExportOptions) -> float:
        """As Export.tolerance."""
        return TOLERANCE

    def measures(self, source: ExportSource, place: Path) -> Mapping[str, float]:
        """As Export.measures: the outputs compared with torch's, and the speed compared with the net of 32 bits."""
        run, full = compiled(place / MODEL), compiled(converted(source))
        return quality(source, run) | {"speed_up": speed_up(full, run, source)}


def quantized(model: Any, images: Tensor) -> Any:
    """A model of OpenVINO with 8-bit weights and arithmetic, calibrated on images that it takes.

    Raises ModelError KD312 if nncf cannot quantize it.
    """
    with kept_signal_stack(), contextlib.redirect_stdout(io.StringIO()):  # nncf shows its progress
        import nncf

        nncf.set_log_level(logging.ERROR)
        dataset = nncf.Dataset(images.split(1), Tensor.numpy)
        try:
            return nncf.quantize(model, dataset, subset_size=len(images))
        except Exception as error:  # nncf's and OpenVINO's own classes
            raise ModelError("KD312", f"nncf cannot quantize the net: {cause(error)}") from error
