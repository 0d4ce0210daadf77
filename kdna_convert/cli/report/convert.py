"""The result of `kdna convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .divergence import stage_table
from .figures import note
from .plan import plan_report

if TYPE_CHECKING:  # imports torch, which a report does not need
    from ...network.folder import Conversion


def conversion_report(conversion: Conversion) -> RenderableType:
    """The plan, the divergence after every stage, and the time."""
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in conversion.report.seconds.items())
    stages = stage_table(conversion.report.stages)
    return Group(
        plan_report(conversion.plan),
        "",
        stages,
        *_healed(conversion),
        *_repaired(conversion),
        *latency_line(conversion),
        note(seconds),
    )


def latency_line(conversion: Conversion) -> list[RenderableType]:
    """The measured time beside the planned one."""
    found = conversion.report.latency
    if found is None:
        return []
    times = f"{found.measured:.3g} ms measured, {found.planned:.3g} ms planned, {found.original:.3g} ms the original"
    return [f"one image, run factored: {times} ({found.timed})"]


def _healed(conversion: Conversion) -> list[RenderableType]:
    """With `fit.progressive`: the KL after each family, in the order of conversion."""
    predicted = conversion.plan.predicted
    fits = [fit for fit in conversion.report.families or () if fit.healed is not None]
    turns = sorted(fits, key=lambda fit: predicted.get(fit.owner, 0.0))
    values = ", ".join(f"{fit.owner} {fit.healed:.4f}" for fit in turns)
    measure = "error" if any(one.kl is None for one in conversion.report.stages.values()) else "KL"
    return [note(f"{measure} after the fine-tuning of each family: {values}")] if turns else []


def _repaired(conversion: Conversion) -> list[RenderableType]:
    """The KL before and after each repair step, and which steps were undone."""
    steps = conversion.report.repair
    if not steps:
        return []
    values = [f"before {steps[0].judged[0]:.4f}"]
    for one in steps:
        _, kl = one.judged
        after = "" if kl is None else f" {kl:.4f}"
        values.append(f"{one.step}{after}{'' if one.kept else ' (undone)'}")
    measure = "error" if steps[0].before.kl is None else "KL"
    return [note(f"repair, {measure} on mixed held-out images: {', '.join(values)}")]
