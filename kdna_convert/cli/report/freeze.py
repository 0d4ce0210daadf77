"""What freezing a routing came to: what the net costs now, and how far it has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.specs import Plan
from .divergence import divergence_table
from .figures import count, note, totals

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder.report import FreezeReport


def freeze_report(plan: Plan, frozen: FreezeReport) -> RenderableType:
    """The totals, and the divergences that were measured: what the mean costs, and what is left of the original."""
    measured = {
        "routed, from the original": frozen.routed_from_original,
        "frozen, from the original": frozen.from_original,
        "frozen, from the routed": frozen.from_routed,
    }
    known = {name: seen for name, seen in measured.items() if seen is not None}
    table = divergence_table(known) if known else "divergence: not measured, as no images were held back"
    closing = note(f"the mean over {count(frozen.images)} images; {frozen.seconds:.0f} s")
    return Group(totals(plan.original, plan.planned), "", table, closing)
