"""What the tables of reports are made of."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ...core.amounts import count, kept, milliseconds, size
from ...core.specs import BoardUse, LimitUse, Totals

SHARING_NOTE = (
    "Sharing alone does not reduce MACs: a folded net computes the convolutions of the original. "
    "The factored MACs are those of converted layers run as chains of smaller convolutions."
)


def grid(*columns: str) -> Table:
    """A table in the style of all reports. A column whose name begins with > is right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def note(text: str) -> Text:
    return Text(text, style="dim")


def totals(before: Totals, after: Totals) -> RenderableType:
    """Parameters, bytes, MACs, and the time of a plan for a latency, relative to the original."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    rows = [
        ("parameters kept", before.params, after.params),
        ("bytes kept", before.bytes, after.bytes),
        ("MACs, run factored", before.macs, after.macs),
    ]
    for label, old, new in rows:
        table.add_row(label, kept(new, old), f"({count(new)} of {count(old)})")
    if before.latency and after.latency:
        times = f"({milliseconds(after.latency)} of {milliseconds(before.latency)})"
        table.add_row("time, run factored", kept(after.latency, before.latency), times)
    return table


def board_limits(use: BoardUse) -> RenderableType:
    """One row per limit of a device: used of allowed, and that of the original."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_column()
    for limit in use.limits:
        allowed = "" if limit.allowed is None else f"of {_amount(limit, limit.allowed)}"
        original = "" if limit.used == limit.original else f"original {_amount(limit, limit.original)}"
        notes = ", ".join(part for part in (limit.at and f"at {limit.at}", original) if part)
        table.add_row(f"{limit.name}, estimate", _amount(limit, limit.used), allowed, notes and f"({notes})")
    return table


def _amount(limit: LimitUse, amount: int) -> str:
    return milliseconds(amount) if limit.name == "latency" else size(amount)
