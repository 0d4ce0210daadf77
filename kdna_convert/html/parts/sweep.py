"""A sweep: what every net keeps at every budget, the best of each size, and the jobs that failed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from ...core.amounts import count, measured, percent, size
from ...core.measurements import MEASURES
from ...core.sweep_result import SweepPoint, SweepResult, front
from ..chart import INK, MUTED, SERIES, TIP, chart, drawn_text
from ..material import Material
from ..part import Column, Part, filled, table
from .axes import log_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Axis = Literal["params", "bytes"]
NAMES: dict[Axis, str] = {"params": "parameters", "bytes": "bytes of the file"}
MARKS = "o^sDv<>P"


def sweep(material: Material) -> Part | None:
    """The front of each net, and the table of all."""
    found = material.sweep
    if found is None:
        return None
    figures = [figure for net in dict.fromkeys(point.net for point in found.points) for figure in _of_net(found, net)]
    failed, missing = len(found.failed), len(found.missing)
    sentence = f"{count(len(found.rows) - failed)} of {count(len(found.rows) + missing)} jobs are done"
    sentence += f", {count(failed)} failed" if failed else ""
    sentence += ". The line joins the nets that no smaller net beats; the dashed line is the original."
    return Part(
        "sweep", "What each net keeps", sentence, filled("figures.html", figures=figures) + _table(found.points)
    )


def failures(material: Material) -> Part | None:
    """The jobs that failed, with their codes; None where there are none."""
    failed = () if material.sweep is None else material.sweep.failed
    if not failed:
        return None
    rows = [(row.job, row.code or "-", row.message or "", row.command) for row in failed]
    columns = [Column(name) for name in ("job", "code", "why", "command")]
    sentence = "`kdna explain CODE` says more. The same `kdna sweep` runs them again."
    return Part("failures", "Jobs that failed", sentence, table(columns, rows, "Failed jobs"))


def _of_net(found: SweepResult, net: str) -> list[tuple[str, Markup]]:
    """The charts of a net: by parameters for those budgets, and by bytes for all nets if there are budgets of bytes."""
    scored = [each for each in found.points if each.net == net and each.score is not None]
    by_params = [each for each in scored if each.budget.startswith("params")]
    charts: dict[Axis, list[SweepPoint]] = {
        "params": by_params,
        "bytes": scored if len(by_params) < len(scored) else [],
    }
    drawn = []
    for axis, points in charts.items():
        if points:
            title = MEASURES[points[0].measure or "agreement"].title
            drawn.append((f"{net}: {title} by {NAMES[axis]} kept", _figure(points, axis)))
    return drawn


def _figure(points: Sequence[SweepPoint], axis: Axis) -> Markup:
    name = points[0].measure or "agreement"
    prefix = f"{TIP}{axis}-"
    tips = {
        f"{prefix}{place}": f"{each.recipe}, {each.budget}: {percent(_share(each, axis))}, {_told(each)}"
        for place, each in enumerate(points)
    }
    label = f"{points[0].net}: {MEASURES[name].title} by {NAMES[axis]}"
    return chart(partial(_draw, points, axis, name, prefix), label, tips, (7, 3.4))


def _draw(points: Sequence[SweepPoint], axis: Axis, name: str, prefix: str, axes: Axes) -> None:
    best = front(points, axis)
    axes.plot([_share(each, axis) for each in best], [each.score or 0.0 for each in best], color=INK, lw=1.5)
    recipes = [*dict.fromkeys(each.recipe for each in points)]
    for number, recipe in enumerate(recipes):
        color, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
        own = [(place, each) for place, each in enumerate(points) if each.recipe == recipe]
        for first, (place, each) in enumerate(own):
            title = None if first else drawn_text(recipe)
            spread = each.spread / 2
            axes.errorbar([_share(each, axis)], [each.score or 0.0], [spread], color=color, capsize=3, fmt="none")
            axes.plot([_share(each, axis)], [each.score or 0.0], mark, color=color, label=title, gid=f"{prefix}{place}")
    if points[0].original is not None:
        axes.axhline(points[0].original, color=MUTED, ls="--", lw=1)
    log_shares(axes, f"{NAMES[axis]} kept")
    if MEASURES[name].unit == "%":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axes.set_ylabel(MEASURES[name].title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)


def _share(point: SweepPoint, axis: Axis) -> float:
    return point.kept[0] if axis == "params" else point.kept[1]


def _told(point: SweepPoint) -> str:
    """`92.25 % top-1`, with the spread over the seeds."""
    if point.score is None or point.measure is None:
        return "-"
    spread = "" if point.seeds == 1 else f" (within {measured(point.measure, point.spread)} over {point.seeds} seeds)"
    return f"{measured(point.measure, point.score)} {MEASURES[point.measure].title}{spread}"


def _table(points: Sequence[SweepPoint]) -> Markup:
    numbers = ("parameters", "kept", "bytes", "kept", "score", "original", "seconds")
    columns = [*(Column(name) for name in ("net", "recipe", "budget")), *(Column(name, True) for name in numbers)]
    rows = []
    for each in points:
        known = each.measure is not None and each.original is not None
        original = measured(each.measure or "", each.original or 0.0) if known else "-"
        sizes = (count(round(each.params)), percent(each.kept[0]), size(round(each.bytes)), percent(each.kept[1]))
        rows.append((each.net, each.recipe, each.budget, *sizes, _told(each), original, f"{each.seconds:.0f}"))
    return table(columns, rows, "Every net, means over the seeds")
