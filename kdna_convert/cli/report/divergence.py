"""The distance from the original after each stage, which most reports show."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from ...core.specs import Divergence
from .figures import count, grid, note, percent


def divergence_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """How far from the original the net is at each stage, on the same held-back images."""
    table = grid("stage", ">agreement", ">KL, nats", ">logit error", ">images")
    for stage, seen in stages.items():
        row = (percent(seen.agreement), f"{seen.kl:.4f}", percent(seen.logit_error, 2), count(seen.images))
        table.add_row(stage, *row)
    return Group(table, note("agreement: the same top-1; KL(original, this); logit error: |z - z0|² / |z0|²"))


def stage_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The divergence from the original after each stage, as far as it was measured."""
    if not stages:
        return "divergence from the original: not measured, as no images were held back"
    return divergence_table(stages)
