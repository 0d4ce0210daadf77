"""What a conversion came to: the plan, how far the net has moved from the original, what it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from ..specs import Divergence
from .figures import note
from .outcome import divergence_table
from .plan import plan_report

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ..checkpoint import Conversion


def conversion_report(conversion: Conversion) -> RenderableType:
    """The plan as it was carried out, the divergence after every stage, and the time it took."""
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in conversion.report.get("seconds", {}).items())
    undone = [one["step"] for one in conversion.report.get("repair", []) if not one["kept"]]
    put_back = [note(f"undone, for it came no closer to the original: {', '.join(undone)}")] if undone else []
    stages = moved(conversion.report.get("stages", {}))
    return Group(plan_report(conversion.plan), "", stages, *put_back, note(seconds))


def moved(stages: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """The divergence from the original after each stage, as far as it was measured."""
    if not stages:
        return "divergence from the original: not measured, as no images were held back"
    return divergence_table({stage: Divergence(**seen) for stage, seen in stages.items()})
