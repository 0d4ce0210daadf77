"""The static part of an ONNX graph: what a runtime computes once, when it loads the file.

# Note [Weights at load]
# A node is static if it depends on no input of the graph. onnxruntime runs the static nodes once, when it loads the
# file, and keeps only their results. By then it has fused the batch normalizations that follow constant weights, and
# those that follow computed weights stay in the graph. They are therefore folded here, by a static product that scales
# the weight. In a graph of 16 bits the product is computed in 32, and rounded last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class StaticGraph:
    """A graph whose static nodes come first, and what is needed to add some. See Note [Weights at load]."""

    def __init__(self, graph: Any) -> None:
        self.proto = graph
        self.initializers = {own.name: own for own in graph.initializer}
        self.uses = Counter(_reads(graph.node)) + Counter(own.name for own in graph.output)
        self.static, self.dynamic = _split(graph)
        self.makers = {name: node for node in self.static for name in node.output}
        self.names = (f"computed_{number}" for number in count())
        self.half = _of_16_bits(graph)

    def floats(self, name: str, *, private: bool = False) -> Floats | None:
        """The values of an initializer in float32; None for another value, or with `private` if others read it too."""
        from onnx import TensorProto, numpy_helper

        own = self.initializers.get(name)
        kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
        if own is None or own.data_type not in kinds or (private and self.uses[name] > 1):
            return None
        values: Floats = numpy_helper.to_array(own).astype(np.float32)
        return values

    def constant(self, values: NDArray[Any], name: str | None = None) -> str:
        """The name of an initializer with these values, which replaces one of the same name."""
        from onnx import numpy_helper

        name = name or next(self.names)
        self.initializers[name] = numpy_helper.from_array(values, name)
        self.half.discard(name)
        return name

    def cast(self, name: str, kind: int) -> str:
        """The name of a static value as a tensor of this type."""
        from onnx import helper

        result = next(self.names)
        self.static.append(helper.make_node("Cast", [name], [result], to=kind))
        return result

    def widened(self, name: str) -> str:
        """The name of a static value in 32 bits: of what it was rounded from, if it was."""
        from onnx import TensorProto

        if name not in self.half:
            return name
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Cast" and maker.input[0] not in self.half:
            return str(maker.input[0])
        return self.cast(name, TensorProto.FLOAT)

    def narrowed(self, name: str) -> str:
        """The name of a static value of 32 bits in 16."""
        from onnx import TensorProto

        values = self.floats(name, private=True)
        if values is None:
            return self.cast(name, TensorProto.FLOAT16)
        with np.errstate(over="ignore"):  # the check of the file finds what became infinite
            return self.constant(values.astype(np.float16), name)

    def apply(self, operator: str, left: str, right: str) -> str:
        """The name of a static result: a constant that replaces `left` if only this reads the operands, else a node."""
        from onnx import helper

        values = self.floats(left, private=True), self.floats(right, private=True)
        if values[0] is not None and values[1] is not None:
            result = _NUMPY[operator](values[0].astype(np.float64), values[1].astype(np.float64))
            return self.constant(result.astype(np.float32), left)
        name, operands = next(self.names), [self.widened(left), self.widened(right)]
        self.static.append(helper.make_node(operator, operands, [name]))
        return name

    def per_row(self, name: str, axes: int) -> str:
        """A vector as a tensor with this number of axes, its values along the first."""
        from onnx import helper

        shape = np.array([-1, *[1] * (axes - 1)])
        values = self.floats(name, private=True)
        if values is not None:
            return self.constant(values.reshape(shape))
        reshaped = next(self.names)
        self.static.append(helper.make_node("Reshape", [self.widened(name), self.constant(shape)], [reshaped]))
        return reshaped

    def write(self) -> None:
        """Put the nodes that something reads, and the initializers that they read, into the graph."""
        outputs = [own.name for own in self.proto.output]
        graph, nodes = type(self.proto)(), [*_wanted(self.static, [*_reads(self.dynamic), *outputs]), *self.dynamic]
        read = {*_reads(nodes), *outputs}
        graph.node.extend(nodes)
        graph.initializer.extend(own for name, own in self.initializers.items() if name in read)
        for field in ("node", "initializer"):
            self.proto.ClearField(field)
        self.proto.MergeFrom(graph)


_NUMPY: dict[str, Callable[[Floats, Floats], Floats]] = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract}


def _split(graph: Any) -> tuple[list[Any], list[Any]]:
    """The static nodes and the others."""
    reached = {own.name for own in graph.input}
    static, dynamic = [], []
    for node in graph.node:
        if _has_graphs(node) or not reached.isdisjoint(node.input):
            dynamic.append(node)
            reached.update(node.output)
        else:
            static.append(node)
    return static, dynamic


def _of_16_bits(graph: Any) -> set[str]:
    """The names of the values in float16."""
    from onnx import TensorProto

    stored = {own.name for own in graph.initializer if own.data_type == TensorProto.FLOAT16}
    return stored | {own.name for own in graph.value_info if own.type.tensor_type.elem_type == TensorProto.FLOAT16}


def _wanted(nodes: list[Any], names: Iterable[str]) -> list[Any]:
    """The nodes, in order, that these names or later nodes read."""
    read, kept = set(names), []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(_reads([node]))
    return kept[::-1]


def _has_graphs(node: Any) -> bool:
    return any(True for _ in graphs_of(node))


def graphs_of(node: Any) -> Iterator[Any]:
    """The graphs in the attributes of a node, such as the branches of an If."""
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else [])
        yield from attribute.graphs


def _reads(nodes: Iterable[Any]) -> Iterator[str]:
    """The names that nodes read, those in graphs of attributes included, once for each reader."""
    for node in nodes:
        yield from node.input
        for graph in graphs_of(node):
            yield from _reads(graph.node)
            yield from (own.name for own in graph.output)
