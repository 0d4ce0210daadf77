"""What a conversion or a fine-tune came to: the plan, how far the net has moved after each stage, and remarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ..specs import Divergence
from .outcome import divergence_table
from .plan import plan_report

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ..checkpoint import Conversion


def conversion_report(conversion: Conversion) -> RenderableType:
    """The plan as it was carried out, and the divergence after every stage."""
    return Group(plan_report(conversion.plan), "", stages_report(conversion))


def stages_report(conversion: Conversion) -> RenderableType:
    """The divergence after every stage, where there were images to measure it on."""
    stages = {stage: Divergence(**seen) for stage, seen in conversion.report.get("stages", {}).items()}
    if not stages:
        return "divergence from the original: not measured, as there were no images held back"
    return divergence_table(stages)
