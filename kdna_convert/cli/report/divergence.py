"""The divergence from the original after each stage, a part of most reports."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from ...core.amounts import count, measured, percent
from ...core.measurements import MEASURES, Divergence
from .figures import grid, note

# What each task compares, below the table.
_LEGENDS = {
    "classify": "agreement: same top-1; KL: KL(original, net); logit error: |z - z0|² / |z0|²",
    "segment": "agreement: same class of a pixel; KL: KL(original, net) per pixel; mIoU: of the two nets' maps",
    "binary": "agreement: same answers; KL: KL(original, net); logit error: |z - z0|² / |z0|²",
    "sequence": "agreement: same decoded rows; KL: KL(original, net) per position",
    "image": "PSNR and SSIM: against the original's outputs, clamped to 0..1; error: |y - y0|² / |y0|²",
    "detect": "mAP: the original's boxes of score 0.3 and above as the truth; error: |z - z0|² / |z0|² of the features",
}


def divergence_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The divergence from the original at each stage, on the same held-out images."""
    rows = list(stages.values())
    task = rows[-1].task
    names = [name for name in MEASURES if any(name in one.measures for one in rows)]
    answers, classes = (any(getattr(one, name) is not None for one in rows) for name in ("agreement", "kl"))
    error = "logit error" if classes else "error"
    columns = [*([">agreement"] if answers else []), *([">KL, nats"] if classes else []), f">{error}"]
    table = grid("stage", *columns, *(f">{MEASURES[name].title}" for name in names), ">images")
    for stage, one in stages.items():
        cells = ["-" if one.agreement is None else percent(one.agreement)] if answers else []
        cells += ["-" if one.kl is None else f"{one.kl:.4f}"] if classes else []
        cells += [percent(one.logit_error, 2)]
        cells += [measured(name, one.measures[name]) if name in one.measures else "-" for name in names]
        table.add_row(stage, *cells, count(one.images))
    about = _LEGENDS.get(task, "error: |z - z0|² / |z0|² of the outputs")
    return Group(f"task: {task}", table, note(about))


def stage_table(stages: Mapping[str, Divergence]) -> RenderableType:
    """The same, or a line where no images were held out."""
    if not stages:
        return "divergence from the original: not measured, because no images were held out"
    return divergence_table(stages)
