"""What a plan is expected to give: agreement and KL divergence with their ranges."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from ...core.amounts import percent
from ...core.measurements import Point
from ...core.specs import Plan
from ...stages.plan.expected import Range, expected
from .figures import note

EXPECTED_NOTE = (
    "Expected of nets that return class scores, from measured conversions with the range they had "
    "(docs/decisions/0021); --curve --measure measures yours."
)

UNEXPECTED_NOTE = (
    "No agreement or KL divergence is expected without calibration images: that was not measured "
    "(docs/decisions/0021). Pass --data."
)


def expected_lines(plan: Plan, repaired: bool) -> list[RenderableType]:
    """Two figures with their ranges, or nothing where nothing is predicted."""
    ranges = expected(plan, repaired=repaired)
    if ranges is None:
        return []
    agreement, kl = ranges.agreement, ranges.kl
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_row("expected agreement", percent(agreement.middle), f"({_shares(agreement)})")
    table.add_row("expected KL, nats", nats(kl.middle), f"({nats(kl.low)} to {nats(kl.high)})")
    return [table, "", note(EXPECTED_NOTE)]


def expected_cells(point: Point, repaired: bool) -> tuple[str, str, str]:
    """Agreement, its range, and KL divergence of one row of a curve."""
    ranges = expected(point, repaired=repaired)
    if ranges is None:
        return "-", "", "-"
    return percent(ranges.agreement.middle), f"({_shares(ranges.agreement)})", nats(ranges.kl.middle)


def _shares(agreement: Range) -> str:
    return f"{100 * agreement.low:.0f} to {100 * agreement.high:.0f} %"


def nats(kl: float) -> str:
    """Two significant digits, not below a thousandth."""
    return "<0.001" if kl < 0.001 else f"{kl:.2g}" if kl < 10 else f"{kl:.0f}"
