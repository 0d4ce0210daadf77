"""The layer table: size and MACs of every layer, and why some are skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType

from ...core.amounts import count, dimensions, percent, short
from ...core.errors import CODES
from ...core.specs import Layer
from .figures import grid, note


def layer_table(layers: Sequence[Layer], total_params: int) -> RenderableType:
    """One row per layer, then the reasons of the skipped ones, then the convertible share."""
    table = grid("layer", "kind", "kernel", ">parameters", ">MACs", "skipped")
    for layer in layers:
        kernel = dimensions(layer.shape) + (f" g{layer.groups}" if layer.groups > 1 else "")
        row = (layer.name, layer.kind, kernel, count(layer.params), short(layer.macs), layer.reason or "")
        table.add_row(*row, style="dim" if layer.reason else None)
    free = [layer for layer in layers if layer.reason is None]
    params = sum(layer.params for layer in free)
    share = percent(params / total_params) if total_params else "-"
    closing = f"{len(free)} of {len(layers)} layers can be converted: {count(params)} parameters, {share} of the net"
    return Group(table, "", *reasons(layers), closing)


def reasons(layers: Sequence[Layer]) -> list[RenderableType]:
    """One line for each code that skips layers."""
    codes = Counter(layer.reason for layer in layers if layer.reason is not None)
    return [note(f"{code}, {layer_count(number)}: {CODES[code]}") for code, number in sorted(codes.items())]


def layer_count(number: int) -> str:
    return "1 layer" if number == 1 else f"{number} layers"
