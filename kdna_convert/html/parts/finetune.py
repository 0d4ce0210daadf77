"""The fine-tune: its loss over the steps, and what it gained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...core.amounts import count, percent
from ...network.folder.report import FinetuneReport
from ..chart import SERIES, TIP, chart
from ..material import Material
from ..part import Part, filled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def finetune(material: Material) -> Part | None:
    """The curve of the loss, None for a net that was not fine-tuned."""
    made = material.report.finetune if material.report else None
    if made is None:
        return None
    tips = {
        f"{TIP}loss-{place}": f"step {step:.0f}: loss {loss:.4g}" for place, (step, loss) in enumerate(_points(made))
    }
    title = "loss of the fine-tune over its steps"
    drawn = chart(partial(_draw, made), title, tips) if len(made.losses) > 1 else None
    note = "Mean loss between two looks at the held-out images."
    figures = [] if drawn is None else [(note, drawn)]
    return Part("finetune", "Fine-tune", _sentence(made), filled("figures.html", figures=figures))


def _sentence(made: FinetuneReport) -> str:
    what = f"{count(made.trained)} of {count(made.params)} parameters were trained for {count(made.steps)} steps"
    length = f"{made.seconds / 60:.1f} minutes" if made.seconds >= 60 else f"{made.seconds:.0f} seconds"
    what = f"{what}, {length}, at a peak rate of {made.lr:.2g}."
    before, after = made.before, made.after
    if before is None or after is None:
        return f"{what} No image was held out to judge it."
    if not made.kept:
        return f"{what} It did no good on the held-out images, so the net is that of before."
    if before.agreement is not None and after.agreement is not None:
        gain = f"from {percent(before.agreement, 2)} to {percent(after.agreement, 2)}"
        return f"{what} The share of held-out images with the answer of the original went {gain}."
    return f"{what} The distance from the original went from {before.distance:.3g} to {after.distance:.3g}."


def _points(made: FinetuneReport) -> list[tuple[float, float]]:
    """(step, loss) of each mean."""
    each = made.steps / max(len(made.losses), 1)
    return [((place + 1) * each, loss) for place, loss in enumerate(made.losses)]


def _draw(made: FinetuneReport, axes: Axes) -> None:
    points = _points(made)
    axes.plot([step for step, _ in points], [loss for _, loss in points], color=SERIES[0])
    for place, (step, loss) in enumerate(points):
        axes.plot([step], [loss], "o", ms=4, color=SERIES[0], gid=f"{TIP}loss-{place}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
