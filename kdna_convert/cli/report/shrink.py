"""What cutting a converted net came to: its plan, and how far it is from the original before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.specs import required
from .divergence import stage_table
from .figures import count, note
from .plan import plan_report

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion


def shrink_report(conversion: Conversion) -> RenderableType:
    """The plan that is left, the parameters it came from, and the divergence after every stage."""
    done = required(conversion.report.shrink)
    came = f"cut from {count(done.before)} to {count(done.params)} parameters"
    stages = stage_table(conversion.report.stages)
    return Group(plan_report(conversion.plan), "", came, "", stages, note(f"{done.seconds:.0f} s"))
