"""Make the ONNX graph of a net that computes its weights small and fast."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from .static_graph import StaticGraph, graphs_of


def compact_graph(model: Any, names: Mapping[str, str]) -> Any:
    """A small graph that is equivalent to a traced one.

    Args:
        model: A ModelProto, as it was traced. It is changed.
        names: The names in the file of initializers.

    Returns:
        The ModelProto.
    """
    model = _without_shape_arithmetic(model)
    _fold_norms(StaticGraph(model.graph))
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


def _fold_norms(graph: StaticGraph) -> None:
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


def _fold_norm(graph: StaticGraph, layer: Any, norm: Any) -> bool:
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
    rounded = weight in graph.half
    biases = [graph.apply("Add", graph.apply("Mul", own, scale), shift) for own in bias] or [shift]
    axes = 2 + len(attributes["strides"].ints)
    statics = [graph.apply("Mul", weight, graph.per_row(scale, axes)), *biases]
    inputs = [x, *(map(graph.narrowed, statics) if rounded else statics)]
    del layer.input[:]
    layer.input.extend(inputs)
    return True


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
        for inner in graphs_of(node):
            _rename(inner, names)
            for own in inner.output:
                own.name = names.get(own.name, own.name)
