"""The divergence from the original after each stage, a part of most reports."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from ...core.measurements import Divergence
from .figures import count, grid, note, percent


def divergence_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The divergence from the original at each stage, on the same held-out images."""
    table = grid("stage", ">agreement", ">KL, nats", ">logit error", ">images")
    for stage, one in stages.items():
        row = (percent(one.agreement), f"{one.kl:.4f}", percent(one.logit_error, 2), count(one.images))
        table.add_row(stage, *row)
    return Group(table, note("agreement: same top-1; KL: KL(original, net); logit error: |z - z0|² / |z0|²"))


def stage_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The same, or a line where no images were held out."""
    if not stages:
        return "divergence from the original: not measured, because no images were held out"
    return divergence_table(stages)
