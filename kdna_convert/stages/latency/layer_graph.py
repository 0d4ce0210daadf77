"""A layer's form as an ONNX graph, and as a net of torch. The weights are noise: they do not change the time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.specs import Shape
from .layer_form import LayerForm

OPSET, IR = 17, 10
_SCALE = 1 / 32  # of 8-bit numbers


def layer_graph(form: LayerForm, dtype: str = "fp32") -> bytes:
    """The form with a ReLU at its end as an ONNX graph. Its input is `images`, of the form's input size.

    Args:
        form: What to build.
        dtype: fp32, or int8: weights and activations are quantized, as `kdna export --to onnx-int8` does.
    """
    from onnx import TensorProto, helper

    graph = _LayerGraph(eight_bits=dtype == "int8")
    name = graph.quantized("images")
    for place, kernel in enumerate(form.kernels):
        name = graph.quantized(graph.layer(form, place, kernel, name))
    graph.add("Relu", [name], "output")
    made = helper.make_graph(
        graph.nodes,
        "layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, form.input)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return bytes(model.SerializeToString())


class _LayerGraph:
    """The nodes and constants of a graph, while it is built."""

    def __init__(self, *, eight_bits: bool) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.eight_bits = eight_bits
        self.numbers: Iterator[int] = count()
        self.noise = np.random.default_rng(0)

    def add(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"v{next(self.numbers)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"c{next(self.numbers)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def layer(self, form: LayerForm, place: int, kernel: Shape, x: str) -> str:
        """One layer of the chain; in 8 bits, its weight is an integer."""
        shape = kernel if len(kernel) > 2 else kernel[::-1]  # a matrix product takes (in, out)
        weight = self.noise.integers(-127, 128, shape).astype(np.int8)
        if self.eight_bits:
            scale, zero = self.constant(np.float32(_SCALE)), self.constant(np.int8(0))
            name = self.add("DequantizeLinear", [self.constant(weight), scale, zero])
        else:
            name = self.constant(weight.astype(np.float32) * np.float32(_SCALE))
        if len(kernel) == 2:
            return self.add("MatMul", [x, name])
        taps = kernel[2:]
        plain: dict[str, Shape] = {"strides": (1,) * len(taps), "pads": (0,) * 2 * len(taps)}
        own: dict[str, Shape] = {"strides": form.stride, "pads": form.pads, "dilations": form.dilation}
        attributes: dict[str, Any] = dict(own) if place == form.spatial else dict(plain)
        last = place == len(form.kernels) - 1  # which has the bias of the folded batch norm
        bias = [self.constant(np.zeros(kernel[0], np.float32))] if last else []
        return self.add("Conv", [x, name, *bias], kernel_shape=taps, group=form.groups[place], **attributes)

    def quantized(self, x: str) -> str:
        """The tensor rounded to 8 bits, in a graph of 8 bits."""
        if not self.eight_bits:
            return x
        scale, zero = self.constant(np.float32(_SCALE)), self.constant(np.uint8(128))
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [x, scale, zero]), scale, zero])


class LayerNet(nn.Module):
    """The form with a ReLU at its end as a net of torch."""

    def __init__(self, form: LayerForm) -> None:
        super().__init__()
        self.form = form
        self.weights = nn.ParameterList([torch.randn(kernel) for kernel in form.kernels])
        half = len(form.pads) // 2
        self.padding, self.after = form.pads[:half], form.pads[half:]

    def forward(self, x: Tensor) -> Tensor:
        for place, (weight, groups) in enumerate(zip(self.weights, self.form.groups, strict=True)):
            if weight.ndim == 2:
                x = F.linear(x, weight)
                continue
            run: Any = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
            if place != self.form.spatial:
                x = run(x, weight, groups=groups)
                continue
            padding = self.padding
            if padding != self.after:
                before_and_after = zip(reversed(self.padding), reversed(self.after), strict=True)
                x, padding = F.pad(x, [side for pair in before_and_after for side in pair]), (0,) * len(padding)
            x = run(x, weight, None, self.form.stride, padding, self.form.dilation, groups)
        return x.relu()
