"""What a conversion came to: the plan, how far the net has moved from the original, what it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from ...core.specs import Divergence
from .figures import note
from .outcome import divergence_table
from .plan import plan_report

if TYPE_CHECKING:  # the file imports torch, and a report needs none
    from ...network.folder import Conversion


def conversion_report(conversion: Conversion) -> RenderableType:
    """The plan as it was carried out, the divergence after every stage, and the time it took."""
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in conversion.report.get("seconds", {}).items())
    stages = moved(conversion.report.get("stages", {}))
    return Group(plan_report(conversion.plan), "", stages, *_healed(conversion), *_repaired(conversion), note(seconds))


def _healed(conversion: Conversion) -> list[RenderableType]:
    """The divergence after each turn of a conversion that healed between them, in the order of the turns."""
    predicted = conversion.plan.predicted
    fits = [fit for fit in conversion.report.get("families", []) if fit.get("healed") is not None]
    turns = sorted(fits, key=lambda fit: predicted.get(fit["owner"], 0.0))
    said = ", ".join(f"{fit['owner']} {fit['healed']:.4f}" for fit in turns)
    return [note(f"KL after each family was converted and healed: {said}")] if turns else []


def _repaired(conversion: Conversion) -> list[RenderableType]:
    """The KL by which each step of the repair was judged, and what came of it."""
    steps = conversion.report.get("repair", [])
    if not steps:
        return []
    said = [f"{steps[0]['judged'][0]:.4f}"]
    for one in steps:
        _, kl = one["judged"]
        found = "" if kl is None else f" {kl:.4f}"
        said.append(f"{one['step']}{found}{'' if one['kept'] else ' (undone)'}")
    return [note(f"repair, judged by KL on mixtures of held-back images: {', '.join(said)}")]


def moved(stages: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """The divergence from the original after each stage, as far as it was measured."""
    if not stages:
        return "divergence from the original: not measured, as no images were held back"
    return divergence_table({stage: Divergence(**seen) for stage, seen in stages.items()})
