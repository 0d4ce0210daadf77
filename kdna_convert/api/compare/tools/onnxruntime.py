"""onnxruntime's static int8: weights per output channel, activations calibrated on the images; the file is .onnx."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from ....network.totals import macs
from ..tool_run import Candidate, ToolRun, count, example_of

CALIBRATION = 200  # images: more hardly change the min-max ranges, and onnxruntime holds all their activations
INPUT = "images"


class OnnxNet(nn.Module):
    """An .onnx file as a net on the CPU, with as many threads as torch. The session opens at the first call."""

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        self.graph = graph
        self._session: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self._session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        return torch.from_numpy(self._session.run(None, {INPUT: x.numpy()})[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a session cannot be pickled


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """The exported net, quantized to eight bits. Parameters and multiply-adds are those of the original."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported, ready, quantized = (folder / f"{stage}.onnx" for stage in ("exported", "ready", "quantized"))
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            net, (images[:2].clone(),), exported, input_names=[INPUT], dynamo=True, dynamic_shapes=({0: batch},)
        )
        quant_pre_process(exported, ready)
        quantize_static(
            ready,
            quantized,
            _ImageReader(images[:CALIBRATION]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        graph = quantized.read_bytes()
    return Candidate(OnnxNet(graph), params=count(net), bytes=len(graph), macs=macs(net, example_of(images)))


class _ImageReader(CalibrationDataReader):  # type: ignore[misc]
    """The images one by one, for the quantizer."""

    def __init__(self, images: Tensor) -> None:
        self._images = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image.numpy()}
