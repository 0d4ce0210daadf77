"""The result of `kdna plan --curve`, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType

from ...core.amounts import count, kept, percent, short
from ...core.measurements import Curve, Point
from ...stages.plan.expected import RECOMMENDED, recommended
from .expected import EXPECTED_NOTE, UNEXPECTED_NOTE, expected_cells, nats
from .figures import grid, note

# The titles of the last columns: whether figures are expected, and whether they are measured.
_TITLES = {
    (True, False): (">agreement", "range", ">KL, nats"),
    (True, True): (">agreement", ">measured", ">KL, nats", ">measured"),
    (False, True): (">agreement", ">KL, nats"),
    (False, False): (),
}


def curve_report(curve: Curve, repaired: bool | None = True) -> RenderableType:
    """One row per budget with the expected and, where measured, the real agreement; the recommended row is marked.

    `repaired` says whether conversions are repaired; None: they are without images, and nothing is expected of them.
    """
    best = _best(curve, repaired)
    measured = any(point.measured for point in curve.points)
    titles = _TITLES[repaired is not None, measured]
    table = grid("", ">kept", ">parameters", ">bytes", ">MACs", *titles)
    for point in curve.points:
        planned = point.planned
        sizes = (kept(planned.params, curve.params), count(planned.params), short(planned.bytes), short(planned.macs))
        row = _cells(point, repaired, measured)
        table.add_row("*" if point is best else "", *sizes, *row, style="bold" if point is best else None)
    expected = EXPECTED_NOTE if repaired is not None else UNEXPECTED_NOTE
    notes = [expected, "Measured: a quick fit without repair." if measured else "", "MACs: factored."]
    advice = [_advice(best)] if repaired is not None or measured else []
    parts: list[RenderableType] = [table, "", *advice, note(" ".join(filter(None, notes)))]
    if curve.correlation is not None:
        parts.append(f"rank correlation of predicted error and measured divergence: {curve.correlation:.2f}")
    return Group(*parts)


def chosen(curve: Curve, repaired: bool | None) -> Point:
    """The recommended row, or else the largest budget."""
    return _best(curve, repaired) or curve.points[0]


def plot_curve(curve: Curve, path: Path, repaired: bool | None = True) -> None:
    """Draw the chart of the page as SVG, PNG or PDF by the name of the file."""
    from ...html.chart import chart_file
    from ...html.parts.curve import drawing

    chart_file(path, [drawing(curve, repaired)])


def _best(curve: Curve, repaired: bool | None) -> Point | None:
    """The recommended row. Without images it can only be a measured one."""
    if repaired is None:
        return recommended([point for point in curve.points if point.measured])
    return recommended(curve.points, repaired=repaired)


def _cells(point: Point, repaired: bool | None, measured: bool) -> list[str]:
    """The expected and the measured figures of one row."""
    expected = [] if repaired is None else list(expected_cells(point, repaired))
    if not measured:
        return expected
    real = point.measured
    agreement, kl = (None, None) if real is None else (real.agreement, real.kl)
    cells = ["-" if agreement is None else percent(agreement), "-" if kl is None else nats(kl)]
    return [expected[0], cells[0], expected[2], cells[1]] if expected else cells


def _advice(best: Point | None) -> str:
    """The recommended row, in a sentence."""
    if best is None:
        return f"No row agrees with the original on {RECOMMENDED:.0%} of the images."
    source = "an expected" if best.measured is None else "a measured"
    goal = f"{RECOMMENDED:.0%} or more"
    return f"* recommended: --target-params {best.share:g}, the smallest with {source} agreement of {goal}"
