"""Graphs of computed weights: normalizations are folded where that is exact, and nothing else changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from kdna_convert.stages.export.compact_graph import compact_graph  # noqa: E402

FLOAT = TensorProto.FLOAT
DRAWN = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return DRAWN.uniform(0.5, 2, shape).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=f"the {kind} that gives {output}", **attributes)


def conv(inputs: str, output: str) -> Any:
    return node("Conv", inputs, output, strides=[1, 1])


def norm(inputs: str, output: str) -> Any:
    return node("BatchNormalization", f"{inputs} gamma beta mean variance", output, epsilon=1e-3)


STATISTICS = {name: floats(4) for name in ("gamma", "beta", "mean", "variance")}
WEIGHT = {"w": floats(4, 3, 2, 2)}
INTEGERS = {"q": DRAWN.integers(-9, 9, (4, 3, 2, 2)).astype(np.int8), "step": np.float32(0.1)}
COMPUTED = [node("Cast", "q", "c", to=FLOAT), node("Mul", "c step", "w")]


def graph(nodes: Sequence[Any], tensors: dict[str, Any], outputs: str = "z") -> Any:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3, 5, 5])],
        [helper.make_tensor_value_info(name, FLOAT, ["n", 4, 4, 4]) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
    return list(session.run(None, {"x": x}))


def kinds(model: Any) -> list[str]:
    return [own.op_type for own in model.graph.node]


def compacted(model: Any) -> Any:
    """The small graph, whose outputs are those of the graph."""
    expected = run(model)
    small = compact_graph(onnx.ModelProto.FromString(model.SerializeToString()), {})
    onnx.checker.check_model(small, full_check=True)
    for own, other in zip(run(small), expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)
    return small


def test_a_norm_is_part_of_a_constant_weight_without_any_node() -> None:
    small = compacted(graph([conv("x w", "y"), norm("y", "z")], WEIGHT | STATISTICS))
    assert kinds(small) == ["Conv"]
    assert len(small.graph.initializer) == 2


def test_a_norm_scales_a_computed_weight_which_stays_in_integers() -> None:
    small = compacted(graph([*COMPUTED, conv("x w b", "y"), norm("y", "z")], INTEGERS | {"b": floats(4)} | STATISTICS))
    assert kinds(small) == ["Cast", "Mul", "Mul", "Conv"]
    sizes = {own.name: own.data_type for own in small.graph.initializer}
    assert sizes["q"] == TensorProto.INT8
    assert len(sizes) == 4  # integers, their step, the scale and the bias


def test_the_scale_of_a_norm_can_be_computed_too() -> None:
    tensors = INTEGERS | STATISTICS | {"gamma": np.int8([1, -2, 3, 4]), "mean": np.zeros(4, np.float32)}
    exact = tensors | {"variance": np.full(4, 1 - 1e-3, np.float32)}
    nodes = [*COMPUTED, conv("x w", "y"), node("Cast", "gamma", "cast", to=FLOAT)]
    folded = node("BatchNormalization", "y cast beta mean variance", "z", epsilon=1e-3)
    assert kinds(compacted(graph([*nodes, folded], exact))) == ["Cast", "Mul", "Cast", "Reshape", "Mul", "Conv"]
    assert kinds(compacted(graph([*nodes, folded], tensors))).count("Mul") == 3


def test_a_weight_of_two_layers_is_stored_once_and_scaled_for_one() -> None:
    nodes = [conv("x w", "y"), norm("y", "u"), node("Relu", "x", "r"), conv("r w", "v"), node("Add", "u v", "z")]
    small = compacted(graph(nodes, WEIGHT | STATISTICS))
    assert kinds(small) == ["Mul", "Conv", "Relu", "Conv", "Add"]


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([conv("x w", "y"), norm("y", "u"), node("Add", "u y", "z")], "z"),
        ([conv("x w", "y"), norm("y", "z")], "z y"),
        ([conv("x w", "y"), node("Relu", "y", "r"), norm("r", "z")], "z"),
    ],
)
def test_a_norm_stays_where_others_read_what_it_normalizes(nodes: list[Any], outputs: str) -> None:
    small = compacted(graph(nodes, WEIGHT | STATISTICS, outputs))
    assert "BatchNormalization" in kinds(small)


def test_norms_in_a_row_are_folded_into_one_weight() -> None:
    again = {f"{name}2": floats(4) for name in STATISTICS}
    second = node("BatchNormalization", "u gamma2 beta2 mean2 variance2", "z", epsilon=1e-3)
    assert kinds(compacted(graph([conv("x w", "y"), norm("y", "u"), second], WEIGHT | STATISTICS | again))) == ["Conv"]


def test_weights_are_not_computed_in_advance_and_shapes_are() -> None:
    shape = {"two": np.int64([4, 3]), "rest": np.int64([2, 2]), "flat": INTEGERS["q"].reshape(-1)}
    nodes = [
        node("Concat", "two rest", "shape", axis=0),
        node("Reshape", "flat shape", "q"),
        *COMPUTED,
        conv("x w", "z"),
    ]
    named = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(shape["two"]))
    other = helper.make_node("Constant", [], ["rest"], value=numpy_helper.from_array(shape["rest"]))
    tensors = {"flat": shape["flat"], "step": INTEGERS["step"]}
    small = compacted(graph([named, other, *nodes], tensors))
    assert kinds(small) == ["Reshape", "Cast", "Mul", "Conv"]


def test_equal_tensors_are_stored_once_and_nothing_but_tensors_has_a_name() -> None:
    nodes = [conv("x w", "y"), node("Relu", "x", "r"), conv("r w2", "v"), node("Add", "y v", "z")]
    small = compacted(graph(nodes, WEIGHT | {"w2": WEIGHT["w"]}))
    assert [own.name for own in small.graph.initializer] == ["w"]
    assert not any(own.name for own in small.graph.node)


def test_branches_keep_the_tensors_that_they_read() -> None:
    branch = helper.make_graph(
        [helper.make_node("Mul", ["y", "step"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, ["n", 4, 4, 4])],
    )
    chosen = helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)
    positive = [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m step", "yes")]
    small = compacted(graph([*COMPUTED, conv("x w", "y"), *positive, chosen], INTEGERS))
    assert "If" in kinds(small)
