"""The result of `kdna plan --curve`, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType

from ...core.specs import Curve
from .figures import count, grid, kept, note, percent, short


def curve_report(curve: Curve) -> RenderableType:
    """One row per budget, with the predicted and, where measured, the real divergence."""
    measured = any(point.measured for point in curve.points)
    table = grid(">kept", ">parameters", ">bytes", ">MACs", ">predicted", *([">KL, nats", ">agreement"] * measured))
    for point in curve.points:
        planned = point.planned
        row = [kept(planned.params, curve.params), count(planned.params), count(planned.bytes), short(planned.macs)]
        row.append(f"{point.predicted:.3g}")
        if measured:
            real = point.measured
            row += ["-", "-"] if real is None else [f"{real.kl:.4f}", percent(real.agreement)]
        table.add_row(*row)
    parts: list[RenderableType] = [
        table,
        note("predicted: weighted output error, a score for comparing plans; MACs: factored"),
    ]
    if curve.correlation is not None:
        parts.append(f"rank correlation of predicted and measured divergence: {curve.correlation:.2f}")
    return Group(*parts)


def plot_curve(curve: Curve, path: Path) -> None:
    """Draw predicted error and, where measured, divergence against the parameters kept. Needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shares = [100 * point.planned.params / curve.params for point in curve.points]
    with rc_context({"svg.hashsalt": "kdna", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(shares, [point.predicted for point in curve.points], marker="o", label="predicted error")
        measured = [(share, p.measured.kl) for share, p in zip(shares, curve.points, strict=True) if p.measured]
        if measured:
            axes.plot(*zip(*measured, strict=True), marker="o", label="KL from the original, quick fit")
        axes.set(yscale="log", xlabel="parameters kept, %", ylabel="nats an image")
        axes.grid(alpha=0.3)
        axes.legend()
        kind = path.suffix.removeprefix(".") or "svg"
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
