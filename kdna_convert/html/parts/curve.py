"""The trade-off: what other budgets would have cost, beside the one that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...core.amounts import count, kept, percent, size
from ...core.measurements import Curve
from ...network.folder.report import Report
from ...stages.plan.expected import expected
from ..chart import INK, SERIES, TIP, Drawing
from ..material import Material
from ..part import Column, Part, filled, table
from .axes import log_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Other budgets"


@dataclass(frozen=True)
class DrawnBudget:
    """A budget as it is drawn: the share of the parameters, 0..1, and the KL divergence, low, expected and high."""

    share: float
    low: float
    middle: float
    high: float


def curve(material: Material) -> Part | None:
    """The curve of a conversion or a plan, with the chosen point."""
    known = material.curve
    if known is None:
        if material.plan is None or material.report is None:
            return None
        model = material.plan.model.name
        return Part("curve", TITLE, f"Only this budget was planned. `kdna plan {model} --curve` shows others.")
    repaired = bool(material.report.repair) if material.report is not None else material.repairs
    chosen = _chosen(material)
    name, how = ("this net", "measured") if material.report is not None else ("this plan", "expected")
    drawn = figure(budgets_of(known, repaired), _measured(known), chosen, name, how)
    note = (
        "KL divergence from the original, nats per image, by parameters kept. The band is the range of nets measured."
    )
    body = filled("figures.html", figures=[(note, drawn)]) + _table(known, repaired)
    sentence = "What is expected of the net at other sizes, from the predicted errors of its layers. Lower is better."
    return Part("curve", TITLE, sentence + (f" The square is {name}." if chosen else ""), body)


def budgets_of(known: Curve, repaired: bool | None) -> list[DrawnBudget]:
    """The points of which something is expected; none without images, where `repaired` is None."""
    found = []
    for point in known.points:
        foreseen = None if repaired is None else expected(point, repaired=repaired)
        if foreseen is not None:
            kl = foreseen.kl
            found.append(DrawnBudget(point.planned.params / known.params, kl.low, kl.middle, kl.high))
    return found


def _measured(known: Curve) -> list[tuple[float, float]]:
    """(share, KL divergence) of the points that were converted by a quick fit."""
    pairs = [(point.planned.params / known.params, point.measured) for point in known.points]
    return [(share, found.kl) for share, found in pairs if found is not None and found.kl is not None]


def _chosen(material: Material) -> tuple[float, float] | None:
    """(share, KL divergence) of the net of the page, before its codec; of a plan, what is expected."""
    plan, report = material.plan, material.report
    if plan is None:
        return None
    if report is not None:
        last = _last_shared(report)
    else:
        foreseen = None if material.repairs is None else expected(plan, repaired=material.repairs)
        last = None if foreseen is None else foreseen.kl.middle
    return None if last is None else (plan.planned.params / plan.original.params, last)


def _last_shared(report: Report) -> float | None:
    found = [
        each.kl for name, each in report.stages.items() if name not in ("code", "finetune") and each.kl is not None
    ]
    return found[-1] if found else None


def figure(
    budgets: Sequence[DrawnBudget],
    measured: Sequence[tuple[float, float]],
    chosen: tuple[float, float] | None,
    name: str = "this net",
    how: str = "measured",
) -> Markup:
    """The chart, in which every point can be read. `name` is what was chosen, whose KL divergence is known by `how`."""
    return _drawing(budgets, measured, chosen, name, how).svg


def drawing(known: Curve, repaired: bool | None) -> Drawing:
    """The chart of a curve of which nothing is chosen."""
    return _drawing(budgets_of(known, repaired), _measured(known), None, "", "")


def _drawing(
    budgets: Sequence[DrawnBudget],
    measured: Sequence[tuple[float, float]],
    chosen: tuple[float, float] | None,
    name: str,
    how: str,
) -> Drawing:
    tips = {
        f"{TIP}budget-{n}": f"{percent(each.share)}: KL {each.middle:.3g}, {each.low:.2g} to {each.high:.2g}"
        for n, each in enumerate(budgets)
    }
    tips |= {
        f"{TIP}measured-{n}": f"{percent(share)}: KL {kl:.3g} measured, quick fit"
        for n, (share, kl) in enumerate(measured)
    }
    if chosen is not None:
        tips[f"{TIP}chosen"] = f"{name}: {percent(chosen[0])}, KL {chosen[1]:.3g} {how}"

    def draw(axes: Axes) -> None:
        shares = [each.share for each in budgets]
        if budgets:
            axes.fill_between(
                shares, [b.low for b in budgets], [b.high for b in budgets], color=SERIES[0], alpha=0.2, lw=0
            )
            axes.plot(shares, [each.middle for each in budgets], color=SERIES[0], label="expected, with its range")
        for number, each in enumerate(budgets):
            axes.plot([each.share], [each.middle], "o", color=SERIES[0], gid=f"{TIP}budget-{number}")
        for number, (share, kl) in enumerate(measured):
            title = "measured, quick fit without repair" if number == 0 else None
            axes.plot([share], [kl], "^", color=SERIES[1], label=title, gid=f"{TIP}measured-{number}")
        if chosen is not None:
            axes.plot([chosen[0]], [chosen[1]], "s", ms=8, color=INK, label=name, gid=f"{TIP}chosen")
        axes.set_yscale("log")
        log_shares(axes, "parameters kept")
        axes.set_ylabel("KL divergence, nats per image")
        if axes.lines:
            axes.legend()

    return Drawing(draw, "KL divergence from the original by parameters kept", tips, (7, 3.6))


def _table(known: Curve, repaired: bool | None) -> Markup:
    columns = ("kept", "parameters", "bytes", "expected KL", "measured KL")
    rows = []
    for point in known.points:
        foreseen = None if repaired is None else expected(point, repaired=repaired)
        middle = "-" if foreseen is None else f"{foreseen.kl.middle:.3g}"
        found = "-" if point.measured is None or point.measured.kl is None else f"{point.measured.kl:.3g}"
        planned = point.planned
        rows.append((kept(planned.params, known.params), count(planned.params), size(planned.bytes), middle, found))
    return table([Column(name, number=True) for name in columns], rows, "The budgets as a table", folded=True)
