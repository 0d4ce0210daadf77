"""The largest useful size of a family, from what it stores."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.specs import Layout, Shape, SymbolicShape, product


def dense_limit(layout: Layout, shapes: Sequence[Shape]) -> int:
    """The size at which a family stores as much as its dense kernels, at least 1.

    For layouts in which every tensor's shape contains the size at most once.
    """
    specs = [*layout.shared.values(), *(shape for adapter in layout.adapters for shape in adapter.values())]
    constant = sum(_numbers(shape) for shape in specs if not _grows(shape))
    each = sum(_numbers(shape) for shape in specs if _grows(shape))
    return max(1, (sum(map(product, shapes)) - constant) // each)


def _grows(shape: SymbolicShape) -> bool:
    return any(isinstance(axis, str) for axis in shape)


def _numbers(shape: SymbolicShape) -> int:
    """The numbers in the tensor, or in each unit of the size."""
    return product(tuple(axis for axis in shape if not isinstance(axis, str)))
