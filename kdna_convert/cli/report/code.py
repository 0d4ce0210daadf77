"""What coding came to: the file, and how far the net is from the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from .divergence import stage_table
from .figures import count, kept, note

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion


def code_report(conversion: Conversion) -> RenderableType:
    """The codec, the size of the file against the original's, and the divergence after every stage."""
    done: Mapping[str, Any] = conversion.report["code"]
    before, after = conversion.plan.original.bytes, conversion.plan.planned.bytes
    times = f"1/{before / after:.1f}" if after else ""
    lines = [
        f"{done['codec']}: {count(after)} of {count(before)} bytes, {kept(after, before)}, {times} of the original"
    ]
    if done.get("towards"):
        lines.append(f"each layer makes up for the errors of those before it, towards {done['towards']}")
    return Group(*lines, "", stage_table(conversion.report.get("stages", {})), note(f"{done['seconds']:.0f} s"))
