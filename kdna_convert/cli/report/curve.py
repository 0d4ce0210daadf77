"""The result of `kdna plan --curve`, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType

from ...core.amounts import count, kept, percent, short
from ...core.measurements import Curve, Point
from ...stages.plan.expected import RECOMMENDED, expected, recommended
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
    """Draw the expected KL divergence with its range and, where measured, the real one. Needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shares = [100 * point.planned.params / curve.params for point in curve.points]
    ranges = [None if repaired is None else expected(point, repaired=repaired) for point in curve.points]
    bands = [(share, r.kl.low, r.kl.middle, r.kl.high) for share, r in zip(shares, ranges, strict=True) if r]
    with rc_context({"svg.hashsalt": "kdna", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        if bands:
            kept_shares, low, middle, high = zip(*bands, strict=True)
            axes.fill_between(kept_shares, low, high, alpha=0.2)
            axes.plot(kept_shares, middle, marker="o", label="expected, with its range")
        measured = [
            (share, p.measured.kl)
            for share, p in zip(shares, curve.points, strict=True)
            if p.measured and p.measured.kl is not None
        ]
        if measured:
            axes.plot(*zip(*measured, strict=True), marker="o", label="measured, quick fit without repair")
        axes.set(yscale="log", xlabel="parameters kept, %", ylabel="KL divergence from the original, nats per image")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        kind = path.suffix.removeprefix(".") or "svg"
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


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
