"""The expected cost of a conversion, in one line."""

from __future__ import annotations

from ...core.measurements import ExpectedCost


def cost_line(cost: ExpectedCost) -> str:
    """`expected: about 3 min and 2.1 GB on this machine (2 cores)`."""
    length = f"{max(1, round(cost.seconds))} s" if cost.seconds < 90 else f"{round(cost.seconds / 60)} min"
    cores = "1 core" if cost.cores == 1 else f"{cost.cores} cores"
    return f"expected: about {length} and {cost.bytes / 1e9:.1f} GB on this machine ({cores})"
