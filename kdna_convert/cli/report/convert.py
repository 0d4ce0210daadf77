"""What a conversion came to: the plan, how far the net has moved from the original, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from .divergence import stage_table
from .figures import note
from .plan import plan_report

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion


def conversion_report(conversion: Conversion) -> RenderableType:
    """The plan as it was carried out, the divergence after every stage, and the time it took."""
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in conversion.report.seconds.items())
    stages = stage_table(conversion.report.stages)
    return Group(plan_report(conversion.plan), "", stages, *_healed(conversion), *_repaired(conversion), note(seconds))


def _healed(conversion: Conversion) -> list[RenderableType]:
    """The divergence after each turn of a conversion that healed between them, in the order of the turns."""
    predicted = conversion.plan.predicted
    fits = [fit for fit in conversion.report.families or () if fit.healed is not None]
    turns = sorted(fits, key=lambda fit: predicted.get(fit.owner, 0.0))
    said = ", ".join(f"{fit.owner} {fit.healed:.4f}" for fit in turns)
    return [note(f"KL after each family was converted and healed: {said}")] if turns else []


def _repaired(conversion: Conversion) -> list[RenderableType]:
    """The KL by which each step of the repair was judged, and what came of it."""
    steps = conversion.report.repair
    if not steps:
        return []
    said = [f"{steps[0].judged[0]:.4f}"]
    for one in steps:
        _, kl = one.judged
        found = "" if kl is None else f" {kl:.4f}"
        said.append(f"{one.step}{found}{'' if one.kept else ' (undone)'}")
    return [note(f"repair, judged by KL on mixtures of held-back images: {', '.join(said)}")]
