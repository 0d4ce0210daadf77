"""The result of `kdna shrink`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count
from ...core.specs import required
from .divergence import stage_table
from .figures import note
from .plan import plan_report

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion


def shrink_report(conversion: Conversion) -> RenderableType:
    """The new plan, the parameters before and after, and the divergence after every stage."""
    done = required(conversion.report.shrink)
    change = f"reduced from {count(done.before)} to {count(done.params)} parameters"
    stages = stage_table(conversion.report.stages)
    return Group(plan_report(conversion.plan), "", change, "", stages, note(f"{done.seconds:.0f} s"))
