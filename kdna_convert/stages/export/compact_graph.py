"""Make the ONNX graph of a net that computes its weights small and fast.

# Note [Weights at load]
# A node is static if it depends on no input of the graph. onnxruntime runs the static nodes once, when it loads the
# file, and keeps only their results. By then it has fused the batch normalizations that follow constant weights, and
# those that follow computed weights stay in the graph. They are therefore folded here, by a static product that scales
# the weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def compact_graph(model: Any, names: Mapping[str, str]) -> Any:
    """A small graph that is equivalent to a traced one.

    Args:
        model: A ModelProto, as it was traced. It is changed.
        names: The names in the file of initializers.

    Returns:
        The ModelProto.
    """
    model = _without_shape_arithmetic(model)
    _fold_norms(_Graph(model.graph))
    _share_initializers(model.graph)
    _name_shortly(model, names)
    return model


def _without_shape_arithmetic(model: Any) -> Any:
    """The optimizer's result. Initializers are inputs meanwhile, so that no weight is computed in advance."""
    from onnx import helper
    from onnxscript import optimizer

    inputs, stored = list(model.graph.input), list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.input.extend(helper.make_tensor_value_info(own.name, own.data_type, own.dims) for own in stored)
    model = optimizer.optimize(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(stored)
    return model


class _Graph:
    """A graph whose static nodes come first, and what is needed to add some. See Note [Weights at load]."""

    def __init__(self, graph: Any) -> None:
        self.proto = graph
        self.initializers = {own.name: own for own in graph.initializer}
        self.uses = Counter(_reads(graph.node)) + Counter(own.name for own in graph.output)
        self.static, self.dynamic = _split(graph)
        self.names = (f"computed_{number}" for number in count())

    def floats(self, name: str, *, private: bool = False) -> Floats | None:
        """The values of a float32 initializer; None for another value, or with `private` if others read it too."""
        from onnx import TensorProto, numpy_helper

        own = self.initializers.get(name)
        if own is None or own.data_type != TensorProto.FLOAT or (private and self.uses[name] > 1):
            return None
        values: Floats = numpy_helper.to_array(own)
        return values

    def constant(self, values: NDArray[Any], name: str | None = None) -> str:
        """The name of an initializer with these values, which replaces one of the same name."""
        from onnx import numpy_helper

        name = name or next(self.names)
        self.initializers[name] = numpy_helper.from_array(values, name)
        return name

    def apply(self, operator: str, left: str, right: str) -> str:
        """The name of a static result: a constant that replaces `left` if only this reads the operands, else a node."""
        from onnx import helper

        values = self.floats(left, private=True), self.floats(right, private=True)
        if values[0] is not None and values[1] is not None:
            result = _NUMPY[operator](values[0].astype(np.float64), values[1].astype(np.float64))
            return self.constant(result.astype(np.float32), left)
        name = next(self.names)
        self.static.append(helper.make_node(operator, [left, right], [name]))
        return name

    def per_row(self, name: str, axes: int) -> str:
        """A vector as a tensor with this number of axes, its values along the first."""
        from onnx import helper

        shape = np.array([-1, *[1] * (axes - 1)])
        values = self.floats(name, private=True)
        if values is not None:
            return self.constant(values.reshape(shape))
        reshaped = next(self.names)
        self.static.append(helper.make_node("Reshape", [name, self.constant(shape)], [reshaped]))
        return reshaped

    def write(self) -> None:
        """Put the nodes and the initializers that they read into the graph."""
        graph, nodes = type(self.proto)(), [*self.static, *self.dynamic]
        read = {*_reads(nodes), *(own.name for own in self.proto.output)}
        graph.node.extend(nodes)
        graph.initializer.extend(own for name, own in self.initializers.items() if name in read)
        for field in ("node", "initializer"):
            self.proto.ClearField(field)
        self.proto.MergeFrom(graph)


_NUMPY: dict[str, Callable[[Floats, Floats], Floats]] = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract}


def _fold_norms(graph: _Graph) -> None:
    """Fold each batch normalization that alone reads the output of a convolution, and write the graph."""
    made = {node.output[0]: node for node in graph.dynamic if node.op_type == "Conv"}
    kept = []
    for node in graph.dynamic:
        layer = made.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if layer is None or graph.uses[node.input[0]] > 1 or not _fold_norm(graph, layer, node):
            kept.append(node)
        else:
            layer.output[0] = node.output[0]
            made[node.output[0]] = layer
    graph.dynamic = kept
    graph.write()


def _fold_norm(graph: _Graph, layer: Any, norm: Any) -> bool:
    """Scale the weight of a convolution, and set its bias; False if the statistics are no constants."""
    scale, shift, *statistics = norm.input[1:]
    mean, variance = map(graph.floats, statistics)
    if mean is None or variance is None:
        return False
    attributes = {own.name: own for own in (*norm.attribute, *layer.attribute)}
    inverse = (variance.astype(np.float64) + attributes["epsilon"].f) ** -0.5
    if not np.allclose(inverse, 1, rtol=0, atol=1e-6):
        scale = graph.apply("Mul", scale, graph.constant(inverse.astype(np.float32)))
    if mean.any():
        shift = graph.apply("Sub", shift, graph.apply("Mul", graph.constant(mean), scale))
    x, weight, *bias = layer.input
    biases = [graph.apply("Add", graph.apply("Mul", own, scale), shift) for own in bias] or [shift]
    axes = 2 + len(attributes["strides"].ints)
    inputs = [x, graph.apply("Mul", weight, graph.per_row(scale, axes)), *biases]
    del layer.input[:]
    layer.input.extend(inputs)
    return True


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


def _has_graphs(node: Any) -> bool:
    return any(True for _ in _graphs(node))


def _graphs(node: Any) -> Iterator[Any]:
    """The graphs in the attributes of a node, such as the branches of an If."""
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else [])
        yield from attribute.graphs


def _reads(nodes: Iterable[Any]) -> Iterator[str]:
    """The names that nodes read, those in graphs of attributes included, once for each reader."""
    for node in nodes:
        yield from node.input
        for graph in _graphs(node):
            yield from _reads(graph.node)
            yield from (own.name for own in graph.output)


def _share_initializers(graph: Any) -> None:
    """Keep one of several equal initializers."""
    first: dict[tuple[Any, ...], str] = {}
    names = {
        own.name: first.setdefault((own.data_type, tuple(own.dims), own.raw_data or own.SerializeToString()), own.name)
        for own in graph.initializer
    }
    kept = [own for own in graph.initializer if names[own.name] == own.name]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    _rename(graph, names)


def _name_shortly(model: Any, names: Mapping[str, str]) -> None:
    """Short names for computed values, none for nodes, and nothing that only describes the graph."""
    graph = model.graph
    fixed = {own.name for own in (*graph.input, *graph.output)}
    stored = {own.name: names.get(own.name, own.name) for own in graph.initializer}
    numbers = count()
    computed = {name: f"_{next(numbers)}" for node in graph.node for name in node.output if name and name not in fixed}
    _rename(graph, stored | computed)
    for node in graph.node:
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)
    for own in graph.initializer:
        own.name = stored[own.name]
        own.ClearField("doc_string")
    for field in ("value_info", "doc_string", "metadata_props"):
        graph.ClearField(field)
    model.ClearField("metadata_props")


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                field[place] = names.get(name, name)
        for inner in _graphs(node):
            _rename(inner, names)
            for own in inner.output:
                own.name = names.get(own.name, own.name)
