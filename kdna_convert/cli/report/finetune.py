"""What a fine-tune came to: how much was free to change, how long it took, how far the net is from the original now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ...core.specs import required
from .divergence import stage_table
from .figures import count

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion
    from ...network.folder.report import FinetuneReport


def finetune_report(conversion: Conversion) -> RenderableType:
    """The line that PEFT's users know, and the divergence before and after on the same held-back images."""
    tuned = required(conversion.report.finetune)
    share = f"{100 * tuned.trained / max(tuned.params, 1):.2f}"
    free = f"trainable params: {count(tuned.trained)} || all params: {count(tuned.params)} || trainable%: {share}"
    speed = f"{tuned.images_per_second:.0f} images/s"
    measured = {stage: seen for stage, seen in (("before", tuned.before), ("after", tuned.after)) if seen is not None}
    return Group(
        free,
        f"{count(tuned.steps)} steps in {tuned.seconds:.0f} s, {speed}, peak rate {tuned.lr:.1e}",
        "",
        stage_table(measured),
        *_said(tuned),
    )


def _said(tuned: FinetuneReport) -> list[str]:
    said = []
    if tuned.teacher:
        said.append(f"the teacher was {tuned.teacher}, and these are the distances from its answers")
    if not tuned.kept:
        said.append("this moved the net further from the teacher, so every parameter was put back")
    if tuned.falls:
        times = "once" if tuned.falls == 1 else f"{tuned.falls} times"
        said.append(f"the loss was not finite {times}: taken back to the last state, at half the rate")
    if tuned.ended == "plateau":
        said.append("ended early: the held-back images gained nothing any more")
    return said
