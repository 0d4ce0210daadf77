"""The result of `kdna plan --curve`, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType

from ...core.measurements import Curve
from ...stages.plan.expected import RECOMMENDED, expected, recommended
from .expected import EXPECTED_NOTE, expected_cells, nats
from .figures import count, grid, kept, note, percent, short

_EXPECTED = (">agreement", "range", ">KL, nats")
_MEASURED = (">agreement", ">measured", ">KL, nats", ">measured")


def curve_report(curve: Curve, repaired: bool = True) -> RenderableType:
    """One row per budget with the expected and, where measured, the real agreement; the recommended row is marked."""
    best = recommended(curve.points, repaired=repaired)
    measured = any(point.measured for point in curve.points)
    table = grid("", ">kept", ">parameters", ">bytes", ">MACs", *(_MEASURED if measured else _EXPECTED))
    for point in curve.points:
        planned = point.planned
        sizes = (kept(planned.params, curve.params), count(planned.params), short(planned.bytes), short(planned.macs))
        agreement, spread, kl = expected_cells(point, repaired)
        row = [agreement, spread, kl]
        if measured:
            real = point.measured
            row = [agreement, percent(real.agreement), kl, nats(real.kl)] if real else [agreement, "-", kl, "-"]
        table.add_row("*" if point is best else "", *sizes, *row, style="bold" if point is best else None)
    notes = [EXPECTED_NOTE, "Measured: a quick fit without repair." if measured else "", "MACs: factored."]
    parts: list[RenderableType] = [table, "", _advice(curve, repaired), note(" ".join(filter(None, notes)))]
    if curve.correlation is not None:
        parts.append(f"rank correlation of predicted error and measured divergence: {curve.correlation:.2f}")
    return Group(*parts)


def plot_curve(curve: Curve, path: Path, repaired: bool = True) -> None:
    """Draw the expected KL divergence with its range and, where measured, the real one. Needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shares = [100 * point.planned.params / curve.params for point in curve.points]
    ranges = [expected(point, repaired=repaired) for point in curve.points]
    bands = [(share, r.kl.low, r.kl.middle, r.kl.high) for share, r in zip(shares, ranges, strict=True) if r]
    with rc_context({"svg.hashsalt": "kdna", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        if bands:
            kept_shares, low, middle, high = zip(*bands, strict=True)
            axes.fill_between(kept_shares, low, high, alpha=0.2)
            axes.plot(kept_shares, middle, marker="o", label="expected, with its range")
        measured = [(share, p.measured.kl) for share, p in zip(shares, curve.points, strict=True) if p.measured]
        if measured:
            axes.plot(*zip(*measured, strict=True), marker="o", label="measured, quick fit without repair")
        axes.set(yscale="log", xlabel="parameters kept, %", ylabel="KL divergence from the original, nats per image")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        kind = path.suffix.removeprefix(".") or "svg"
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def _advice(curve: Curve, repaired: bool) -> str:
    """The recommended row, in a sentence."""
    best = recommended(curve.points, repaired=repaired)
    if best is None:
        return f"No row agrees with the original on {RECOMMENDED:.0%} of the images."
    source = "an expected" if best.measured is None else "a measured"
    goal = f"{RECOMMENDED:.0%} or more"
    return f"* recommended: --target-params {best.share:g}, the smallest with {source} agreement of {goal}"
