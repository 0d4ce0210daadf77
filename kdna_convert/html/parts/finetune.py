"""The fine-tune: loss, agreement and rate over steps and minutes, and what it gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...core.amounts import count, percent
from ...network.folder.report import FinetuneReport, Look
from ..chart import SERIES, TIP, chart
from ..material import Material
from ..part import Part, filled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LookCurve:
    """A curve over the validations: what of a Look it shows, in words, and what it means."""

    key: str
    value: Callable[[Look], float]
    words: Callable[[float], str]
    note: str


CURVES = (
    LookCurve(
        "loss", lambda look: look.loss, lambda value: f"loss {value:.4g}", "Loss: the distance from the teacher."
    ),
    LookCurve(
        "agreement",
        lambda look: look.agreement,
        lambda value: f"agreement {percent(value, 2)}",
        "Agreement of the training batches with the answers of the teacher, 0 to 1.",
    ),
    LookCurve("rate", lambda look: look.lr, lambda value: f"rate {value:.3g}", "Learning rate."),
)


def finetune(material: Material) -> Part | None:
    """The curves of loss, agreement and rate, None for a net that was not fine-tuned."""
    made = material.report.finetune if material.report else None
    if made is None:
        return None
    figures = [_figure(made, each) for each in CURVES] if len(made.looks) > 1 else []
    return Part("finetune", "Fine-tune", _sentence(made), filled("figures.html", figures=figures))


def _sentence(made: FinetuneReport) -> str:
    what = f"{count(made.trained)} of {count(made.params)} parameters were trained for {count(made.steps)} steps"
    length = f"{made.seconds / 60:.1f} minutes" if made.seconds >= 60 else f"{made.seconds:.0f} seconds"
    what = f"{what}, {length}, at a peak rate of {made.lr:.2g}."
    before, after = made.before, made.after
    if before is None or after is None:
        return f"{what} No image was held out to judge it."
    if not made.kept:
        return f"{what} It did not help on the held-out images, so the net is unchanged."
    if before.agreement is not None and after.agreement is not None:
        gain = f"from {percent(before.agreement, 2)} to {percent(after.agreement, 2)}"
        return f"{what} The share of held-out images with the answer of the original went {gain}."
    return f"{what} The distance from the original went from {before.distance:.3g} to {after.distance:.3g}."


def _figure(made: FinetuneReport, curve: LookCurve) -> tuple[str, Markup]:
    points = [curve.value(look) for look in made.looks]
    tips = {
        f"{TIP}{curve.key}-{place}": f"step {look.step:,}, {look.seconds:.0f} s, {curve.words(curve.value(look))}"
        for place, look in enumerate(made.looks)
    }
    return curve.note, chart(partial(_draw, made, points, curve), curve.note, tips, (7, 2.4))


def _draw(made: FinetuneReport, points: Sequence[float], curve: LookCurve, axes: Axes) -> None:
    steps = [look.step for look in made.looks]
    axes.plot(steps, points, color=SERIES[0], label="training batches")
    for place, (step, value) in enumerate(zip(steps, points, strict=True)):
        axes.plot([step], [value], "o", ms=4, color=SERIES[0], gid=f"{TIP}{curve.key}-{place}")
    heldout = [(look.step, look.heldout) for look in made.looks if look.heldout is not None]
    if curve.key == "loss" and heldout:
        axes.plot(
            [step for step, _ in heldout], [value for _, value in heldout], color=SERIES[1], label="held-out images"
        )
        axes.legend()
    axes.set_xlabel("step")
    axes.set_ylabel(curve.key)
    minutes = axes.secondary_xaxis("top", functions=(_scaled(made), _scaled(made, back=True)))
    minutes.set_xlabel("minutes")


def _scaled(made: FinetuneReport, back: bool = False) -> Callable[[Any], Any]:
    """Steps as minutes, in proportion to the whole; `back` the other way."""
    minutes = max(made.looks[-1].seconds, 1e-9) / 60 / max(made.looks[-1].step, 1)
    return lambda value: value / minutes if back else value * minutes
