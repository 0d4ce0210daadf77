"""The result of `kdna bank`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import percent, size
from .figures import grid, note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion, SavedVariant


def bank_table(written: Sequence[SavedVariant], conversions: Sequence[Conversion]) -> RenderableType:
    """One row for each fine-tune: the bytes of its folder and of its update, and how near it is to its original."""
    table = grid("fine-tune", ">tensors", ">update", ">agreement", ">error")
    for one, conversion in zip(written, conversions, strict=True):
        measured = conversion.report.divergence
        agreement = "-" if measured is None or measured.agreement is None else percent(measured.agreement)
        error = "-" if measured is None else percent(measured.logit_error, 2)
        update = "-" if one.update is None else size(one.update)
        table.add_row(Path(one.folder).name, size(one.bytes), update, agreement, error)
    folders = sum(one.bytes for one in written)
    shipped = sum(one.bytes if one.update is None else one.update for one in written)
    base = "the folder and its updates" if any(one.update is None for one in written) else "the updates"
    each = "1 folder" if len(written) == 1 else f"{len(written)} folders"
    line = f"{each} {size(folders)}; {base} {size(shipped)}"
    original = sum(conversion.plan.original.bytes for conversion in conversions)
    return Group(table, "", f"{line}; the originals {size(original)}", note("measured on held-out images"))
