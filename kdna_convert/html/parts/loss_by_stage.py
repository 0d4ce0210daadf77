"""Where accuracy went: the distance from the original after each stage, and the error of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...network.folder.report import FamilyFit, Report
from ..chart import MUTED, SERIES, TIP, chart, drawn_text
from ..material import Material
from ..part import Part, filled
from .axes import log_distances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Below this, a distance is drawn as if it were this: logarithmic axes have no zero.
LEAST = 1e-9


def accuracy(material: Material) -> Part | None:
    """The stages, the repair steps and the layers of a conversion."""
    report = material.report
    if report is None:
        return None
    title = "Where accuracy went"
    stages, fits = _stages(report), [fit for fit in report.families or () if fit.errors]
    if not stages and not fits:
        return Part("accuracy", title, "No stage was measured, since there were no images.")
    figures = [_stage_figure(stages)] if stages else []
    if fits:
        figures.append(_layer_figure(fits))
    sentence = "The distance from the original after each stage and repair step, and the error of each layer alone."
    return Part("accuracy", title, sentence, filled("figures.html", figures=figures))


def _stages(report: Report) -> list[tuple[str, float, str]]:
    """(name, distance, unit) after each stage, and of each repair step on the images that judged it."""
    found = [(name, each.distance, "KL" if each.kl is not None else "error") for name, each in report.stages.items()]
    for number, step in enumerate(report.repair or (), 1):
        if step.judged[1] is not None:
            found.append((f"repair {number}: {step.step}{'' if step.kept else ', undone'}", step.judged[1], "repair"))
    return found


def _stage_figure(stages: Sequence[tuple[str, float, str]]) -> tuple[str, Markup]:
    """A point for each stage."""
    tips = {f"{TIP}stage-{place}": f"{name}: {value:.3g}" for place, (name, value, _) in enumerate(stages)}
    measure = "KL divergence" if any(unit == "KL" for _, _, unit in stages) else "relative error of the outputs"
    drawn = chart(
        partial(_draw_stages, stages, measure), f"{measure} after each stage", tips, (7, 0.8 + 0.3 * len(stages))
    )
    note = (
        f"{measure} from the original. Lower is better. Repair steps are judged on mixed images that they do not fit."
    )
    return note, drawn


def _draw_stages(stages: Sequence[tuple[str, float, str]], measure: str, axes: Axes) -> None:
    for place, (_, value, unit) in enumerate(stages):
        judged = unit == "repair"
        form, color = ("s", SERIES[1]) if judged else ("o", SERIES[0])
        axes.plot([max(value, LEAST)], [place], form, color=color, gid=f"{TIP}stage-{place}")
    axes.set_yticks(range(len(stages)), [drawn_text(name) for name, _, _ in stages])
    axes.set_ylim(len(stages) - 0.5, -0.5)
    axes.set_xscale("log")
    shown = [max(value, LEAST) for _, value, _ in stages]
    log_distances(axes.xaxis, min(shown), max(shown))
    axes.set_xlabel(measure)
    if any(unit == "repair" for _, _, unit in stages):
        axes.plot([], [], "o", color=SERIES[0], label="held-out images")
        axes.plot([], [], "s", color=SERIES[1], label="repair step, mixed images")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _layer_figure(fits: Sequence[FamilyFit]) -> tuple[str, Markup]:
    """A point for each layer."""
    names = [name for fit in fits for name in fit.errors]
    errors = [error for fit in fits for error in fit.errors.values()]
    tips = {f"{TIP}layer-{place}": f"{names[place]}: {error:.2e}" for place, error in enumerate(errors)}
    drawn = chart(partial(_draw_layers, fits), "relative output error of each layer", tips)
    note = "Relative output error of each layer after the fit, alone, on the calibration images. A color is a family."
    return note, drawn


def _draw_layers(fits: Sequence[FamilyFit], axes: Axes) -> None:
    place = 0
    for number, fit in enumerate(fits):
        color = SERIES[number % len(SERIES)]
        for error in fit.errors.values():
            axes.plot([place], [max(error, LEAST)], "o", ms=4, color=color, gid=f"{TIP}layer-{place}")
            place += 1
    axes.set_yscale("log")
    shown = [max(error, LEAST) for fit in fits for error in fit.errors.values()]
    log_distances(axes.yaxis, min(shown), max(shown))
    axes.set_xlabel("converted layers, in order")
    axes.set_ylabel("relative error")
    axes.tick_params(axis="x", colors=MUTED)
