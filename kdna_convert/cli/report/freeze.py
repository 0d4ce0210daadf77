"""The result of `kdna freeze`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count
from ...core.specs import Plan
from .divergence import divergence_table
from .figures import note, totals

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder.report import FreezeReport


def freeze_report(plan: Plan, frozen: FreezeReport) -> RenderableType:
    """The sizes, and the divergences of the frozen net from the routed one and from the original."""
    measured = {
        "routed vs. original": frozen.routed_from_original,
        "frozen vs. original": frozen.from_original,
        "frozen vs. routed": frozen.from_routed,
    }
    divergences = {name: one for name, one in measured.items() if one is not None}
    table = (
        divergence_table(divergences) if divergences else "divergence: not measured, because no images were held out"
    )
    closing = note(f"mean over {count(frozen.images)} images; {frozen.seconds:.0f} s")
    return Group(totals(plan.original, plan.planned), "", table, closing)
