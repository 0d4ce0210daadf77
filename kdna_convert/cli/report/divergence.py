"""The divergence from the original after each stage, a part of most reports."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from ...core.measurements import Divergence
from .figures import count, grid, note, percent

UNDEFINED = "not defined for one output"


def divergence_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The divergence from the original at each stage, on the same held-out images."""
    table = grid("stage", ">agreement", ">KL, nats", ">logit error", ">images")
    for stage, one in stages.items():
        agreement = "-" if one.agreement is None else percent(one.agreement)
        kl = "-" if one.kl is None else f"{one.kl:.4f}"
        table.add_row(stage, agreement, kl, percent(one.logit_error, 2), count(one.images))
    about = note("agreement: same top-1; KL: KL(original, net); logit error: |z - z0|² / |z0|²")
    undefined = any(one.kl is None for one in stages.values())
    return Group(table, about, *([note(f"agreement and KL: {UNDEFINED}")] if undefined else []))


def stage_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The same, or a line where no images were held out."""
    if not stages:
        return "divergence from the original: not measured, because no images were held out"
    return divergence_table(stages)
