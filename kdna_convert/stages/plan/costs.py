"""What a choice of sizes costs, exactly, and its predicted error. No torch, no model.

Parameters and bytes come from the layouts of the families, the bytes of the file from its header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ...core.choices import BLOCK, Choice, Database, MemberLatency
from ...core.filesize import data_size, file_size
from ...core.specs import Family, Layer, Layout, Shape, SymbolicShape, TensorSpec, Totals, product
from .budget import Kind

# The size option of each family, in the order of the database; None for a family that is not chosen.
Sizes = tuple[int | None, ...]

_DENSE_METADATA = {"format": "pt"}


def original_totals(database: Database) -> Totals:
    """Parameters, file bytes, MACs and latency of the original net."""
    size = file_size(database.tensors, _DENSE_METADATA) if database.bytes is None else database.bytes
    return Totals(database.params, size, database.macs, database.latency)


def planned_totals(database: Database, sizes: Sizes) -> Totals:
    """Parameters, file bytes, MACs and latency of the net with its families at these sizes."""
    pairs = list(zip(database.choices, sizes, strict=True))
    replaced = {f"{name}.weight" for choice, size in pairs if size is not None for name in choice.family.members}
    kept = [spec for spec in database.tensors if spec.name not in replaced]
    stored = [spec for choice, size in pairs if size is not None for spec in family_tensors(database, choice, size)]
    removed = sum(product(spec.shape) for spec in database.tensors if spec.name in replaced)
    params = database.params - removed + sum(product(spec.shape) for spec in stored) + database.gate_params
    macs = database.macs + sum(_macs(choice, size) - _macs(choice, None) for choice, size in pairs)
    size = file_size([*kept, *stored, *database.gates], database.metadata)
    return Totals(params, size, macs + database.gate_macs, _whole_latency(database, pairs))


def _whole_latency(database: Database, pairs: Sequence[tuple[Choice, int | None]]) -> int | None:
    """Nanoseconds of the net: the original's, and the differences of its layers."""
    if database.latency is None:
        return None
    return database.latency + sum(_latency(choice, size) - _latency(choice, None) for choice, size in pairs)


def total_cost(database: Database, sizes: Sizes, kind: Kind) -> int:
    """The exact cost of the whole net, in the unit of `kind`."""
    return int(getattr(planned_totals(database, sizes), kind))


def family_cost(database: Database, choice: Choice, size: int | None, kind: Kind) -> int:
    """What one family costs alone, None: dense. Exact for parameters and MACs, to a few bytes for the file."""
    if kind == "macs":
        return _macs(choice, size)
    if kind == "latency":
        return _latency(choice, size)
    specs = family_tensors(database, choice, size)
    if kind == "params":
        return sum(product(spec.shape) for spec in specs)
    return sum(data_size(spec) + _header_bytes(spec) for spec in specs)


def predicted_error(choice: Choice, size: int | None) -> float:
    """The weighted output error at a size, interpolated from the measured points; 0 for a dense family."""
    return 0.0 if size is None else predicted_errors(choice, [size])[0]


def predicted_errors(choice: Choice, sizes: Sequence[int]) -> list[float]:
    """The weighted output error at each of these sizes, interpolated from the measured points.

    It is a power of the size between two points and beyond the last one.
    """
    if not choice.points:
        return [0.0] * len(sizes)
    measured = sorted(choice.points)
    logs = [math.log(max(choice.points[point], 1e-300)) for point in measured]
    places, at = [math.log1p(point) for point in measured], [math.log1p(size) for size in sizes]
    found: list[float] = np.interp(at, places, logs).tolist()
    if len(measured) > 1:
        slope = (logs[-1] - logs[-2]) / (places[-1] - places[-2])
        pairs = zip(sizes, at, found, strict=True)
        found = [logs[-1] + slope * (place - places[-1]) if size > measured[-1] else log for size, place, log in pairs]
    return [math.exp(log) for log in found]


def family_tensors(database: Database, choice: Choice, size: int | None) -> list[TensorSpec]:
    """The tensors of one family in the file; None: its dense kernels."""
    if size is None:
        layers = _by_name(database.layers)
        return [TensorSpec(f"{name}.weight", layers[name].shape, choice.dtype) for name in choice.family.members]
    family = replace(choice.family, options={**choice.family.options, choice.size: size})
    return stored_tensors(family, choice.layout, choice.dtype)


def stored_tensors(family: Family, layout: Layout, dtype: str) -> list[TensorSpec]:
    """The tensors of a family with its size among its options. A tensor without elements is not stored."""
    owner = family.members[0]
    parts = [(owner, layout.shared), *zip(family.members, layout.adapters, strict=True)]
    named = [
        TensorSpec(f"{name}.{letter}", _resolve(shape, family), "I16" if letter in layout.indices else dtype)
        for name, part in parts
        for letter, shape in part.items()
    ]
    return [spec for spec in named if product(spec.shape)]


def _resolve(shape: SymbolicShape, family: Family) -> Shape:
    return tuple(int(family.options[axis]) if isinstance(axis, str) else axis for axis in shape)


def _macs(choice: Choice, size: int | None) -> int:
    if size is None:
        return sum(member.dense for member in choice.macs)
    factored = (
        (member.each + member.squared * size) * size if size <= member.factored_up_to else member.dense
        for member in choice.macs
    )
    return sum(factored)


def _latency(choice: Choice, size: int | None) -> int:
    """Nanoseconds of the layers of a family."""
    return sum(member.dense if size is None else _chain_latency(member, size) for member in choice.latency)


def _chain_latency(member: MemberLatency, size: int) -> int:
    """Nanoseconds of a layer at a size, in full blocks; those of the dense layer where that is faster."""
    if not member.chains:
        return member.dense
    measured = sorted(member.chains)
    full = min(-(-size // BLOCK) * BLOCK, max(measured))
    if size > max(measured):  # not measured, since dense is faster there
        return member.dense
    return min(member.dense, round(float(np.interp(full, measured, [member.chains[point] for point in measured]))))


@cache
def _by_name(layers: tuple[Layer, ...]) -> Mapping[str, Layer]:
    return {layer.name: layer for layer in layers}


def _header_bytes(spec: TensorSpec) -> int:
    """Bytes of a tensor's entry in the header, with offsets of seven digits."""
    offsets = [1_000_000, 1_000_000]
    entry = {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}}
    return len(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()) - 1
