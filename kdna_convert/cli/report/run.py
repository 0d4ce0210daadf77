"""What a whole job came to: a row a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from .figures import count, grid, kept, note, percent

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion

DECIDED = {
    True: "so few bytes are asked for that the recipe shares and fine-tunes",
    False: "at this size the recipe shares nothing",
}


def run_report(conversion: Conversion) -> RenderableType:
    """Parameters, bytes and distance from the original after every stage, how long it took, and what is left of it."""
    done: Mapping[str, Any] = conversion.report["run"]
    before, after = conversion.plan.original, conversion.plan.planned
    original = {"stage": "original", "params": before.params, "bytes": before.bytes}
    measured = done.get("original")
    rows = [original | ({"top1": measured["top1"]} if measured else {}), *done["stages"]]
    table = grid(
        "stage", ">parameters", ">bytes", ">agreement", ">KL, nats", *([">top-1"] if measured else []), "seconds"
    )
    for row in rows:
        cells = [row["stage"], count(row["params"]), count(row["bytes"])]
        cells += [_share(row.get("agreement")), "-" if row.get("kl") is None else f"{row['kl']:.4f}"]
        table.add_row(*cells, *([_share(row.get("top1"), 2)] if measured else []), _seconds(row))
    lines = [f"parameters kept {kept(after.params, before.params)}, bytes kept {kept(after.bytes, before.bytes)}"]
    if after.bytes:
        lines[0] += f", 1/{before.bytes / after.bytes:.1f} of the original"
    lines += [DECIDED[done["shares"]]] if done["shares"] is not None else []
    notes = ["agreement, KL: with the original, on images that each stage held back"]
    notes += [f"top-1: of {count(measured['images'])} other images"] if measured else []
    return Group(table, *map(note, notes), "", *lines)


def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else percent(value, digits)


def _seconds(row: Mapping[str, Any]) -> str:
    if "seconds" not in row:
        return ""
    return "done before" if row["done_before"] else f"{row['seconds']:.0f}"
