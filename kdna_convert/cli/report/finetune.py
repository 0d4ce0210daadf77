"""The result of `kdna finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.amounts import count
from ...core.specs import required
from .divergence import stage_table

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion
    from ...network.folder.report import FinetuneReport


def finetune_report(conversion: Conversion) -> RenderableType:
    """The trained parameters, in PEFT's format, and the divergence before and after on the same held-out images."""
    tuned = required(conversion.report.finetune)
    share = f"{100 * tuned.trained / max(tuned.params, 1):.2f}"
    trainable = f"trainable params: {count(tuned.trained)} || all params: {count(tuned.params)} || trainable%: {share}"
    speed = f"{tuned.images_per_second:.0f} images/s"
    measured = {stage: one for stage, one in (("before", tuned.before), ("after", tuned.after)) if one is not None}
    return Group(
        trainable,
        f"{count(tuned.steps)} steps in {tuned.seconds:.0f} s, {speed}, peak learning rate {tuned.lr:.1e}",
        "",
        stage_table(measured),
        *_remarks(tuned),
    )


def _remarks(tuned: FinetuneReport) -> list[str]:
    remarks = []
    if tuned.teacher:
        remarks.append(f"teacher: {tuned.teacher}; the divergences are from this net")
    if not tuned.kept:
        remarks.append("no improvement: the net is unchanged")
    if tuned.falls:
        times = "once" if tuned.falls == 1 else f"{tuned.falls} times"
        remarks.append(
            f"the loss was not finite {times}: training resumed from the last state at half the learning rate"
        )
    if tuned.ended == "plateau":
        remarks.append("stopped early: no improvement on the held-out images")
    return remarks
