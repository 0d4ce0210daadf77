"""The compact graph: it stores what the folder stores, and onnxruntime runs the graph of ordinary weights."""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from support.coded import coded_net
from support.small_nets import OPTIONS, convert, derive_random, route
from torch import Tensor, nn

from kdna_convert.core.specs import DataConfig, ModelRef, Plan, Totals
from kdna_convert.network.folder import Conversion
from kdna_convert.network.stored import stored_state
from kdna_convert.stages.export import EXPORTS, ExportOptions, write_export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


# What onnxruntime runs of the nets below if their weights are constants.
RUN = {"Conv", "FusedConv", "BatchNormalization", "ReduceMean", "Gemm"}


class Many(nn.Module):
    """A layer for each of `names`, each with a normalization, and a normalization before the first."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleDict({name: nn.Conv2d(6, 6, 3, padding=1, bias=False) for name in names})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(6) for name in names})
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.before(x))
        for name, layer in self.layers.items():
            x = torch.relu(self.norms[name](layer(x)))
        return self.head(x.mean((2, 3)))


def many(*names: str) -> nn.Module:
    torch.manual_seed(0)
    net = Many(*names)
    for norm in (net.before, *net.norms.values()):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.running_mean)
    return net.eval()


def all_schemes() -> Conversion:
    """A net with a layer of every scheme."""
    net = many(*OPTIONS)
    families = tuple(derive_random(net, scheme, (f"layers.{scheme}",)) for scheme in OPTIONS)
    plan = Plan(ModelRef("many"), families, (), Totals(1, 1, 1), Totals(1, 1, 1))
    return Conversion(net, plan, DataConfig((3, 12, 12)), "x")


def exported(conversion: Conversion, tmp_path: Path, **options: Any) -> Path:
    form = EXPORTS["onnx-compact"]
    return Path(write_export(form, conversion, tmp_path / "net.onnx", ExportOptions(**options)).file)


def optimized(graph: Path) -> Counter[str]:
    """How often onnxruntime runs each operator once it has loaded the graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{graph}.optimized"
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(f"{graph}.optimized").graph.node)


def stored(graph: Path) -> dict[str, Any]:
    return {each.name: each for each in onnx.load(str(graph)).graph.initializer}


def test_the_file_holds_the_tensors_of_every_scheme_and_runs_as_ordinary_weights(tmp_path: Path) -> None:
    conversion = all_schemes()
    compact = exported(conversion, tmp_path)
    assert {*optimized(compact)} <= RUN
    tensors = stored(compact)
    for name, tensor in stored_state(conversion.model).items():
        letter = name.rpartition(".")[2]
        if name.startswith("layers."):
            assert tuple(tensors[name].dims) == tensor.shape
            assert tensors[name].data_type == (onnx.TensorProto.UINT8 if letter == "K" else onnx.TensorProto.FLOAT)


def test_a_coded_and_routed_net_stays_in_integers(tmp_path: Path) -> None:
    net = many("one", "two")
    families = (convert(net, "cp", ("layers.one", "layers.two")),)
    conversion = coded_net(net, families, "entropy", route(net, "se", ("layers.two",)))
    compact = exported(conversion, tmp_path, normalize=True, input_names=("x",))
    tensors = stored(compact)
    assert {"layers.one.V", "layers.one.U", "layers.two.U", "stem.weight", "norms.one.weight"} <= tensors.keys()
    assert "layers.two.V" not in tensors
    large = [each for each in tensors.values() if prod(each.dims) > 32 and ".gate." not in each.name]
    assert {each.data_type for each in large} == {onnx.TensorProto.INT8}
    assert not {*optimized(compact)} & {"MatMul", "Cast"}


def stored_bytes(graph: Path) -> int:
    return sum(len(each.raw_data) for each in stored(graph).values())


def test_in_16_bits_floats_take_two_bytes_and_inputs_and_outputs_keep_32(tmp_path: Path) -> None:
    conversion = all_schemes()
    whole, half = exported(conversion, tmp_path / "whole"), exported(conversion, tmp_path / "half", fp16=True)
    assert stored_bytes(half) < 0.6 * stored_bytes(whole)
    large = [each for each in stored(half).values() if prod(each.dims) > 32]
    assert {each.data_type for each in large} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8}
    graph = onnx.load(str(half)).graph
    ends = [each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)]
    assert ends == [onnx.TensorProto.FLOAT] * 2
    assert [node.op_type for node in graph.node].count("BatchNormalization") == 1  # the one before all convolutions
    assert {*optimized(half)} <= RUN | {"Cast", "Relu"}  # casts are between what would be fused


def test_in_16_bits_a_coded_net_stays_in_integers_and_is_about_as_large(tmp_path: Path) -> None:
    net = many("one", "two")
    conversion = coded_net(net, (convert(net, "cp", ("layers.one", "layers.two")),), "entropy")
    whole, half = exported(conversion, tmp_path / "whole"), exported(conversion, tmp_path / "half", fp16=True)
    large = [each for each in stored(half).values() if prod(each.dims) > 32]
    assert {each.data_type for each in large} == {onnx.TensorProto.INT8}
    assert stored_bytes(half) <= stored_bytes(whole)
    assert {*optimized(half)} <= RUN | {"Cast", "Relu"}
