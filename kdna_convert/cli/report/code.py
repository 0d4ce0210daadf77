"""The result of `kdna code`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count, kept
from ...core.specs import required
from .divergence import stage_table
from .figures import note

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion


def code_report(conversion: Conversion) -> RenderableType:
    """The codec, the size of the file, and the divergence after every stage."""
    done = required(conversion.report.code)
    before, after = conversion.plan.original.bytes, conversion.plan.planned.bytes
    times = f"1/{before / after:.1f}" if after else ""
    lines = [f"{done.codec}: {count(after)} of {count(before)} bytes, {kept(after, before)}, {times} of the original"]
    if done.towards:
        lines.append(f"each layer compensates the errors of earlier layers, with {done.towards} as target")
    return Group(*lines, "", stage_table(conversion.report.stages), note(f"{done.seconds:.0f} s"))
