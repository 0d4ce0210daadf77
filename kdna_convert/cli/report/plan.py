"""The plan as a table: what every family becomes, to the parameter, and what is left of the net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType

from ...core.specs import Family, Layer, Plan
from .figures import SHARING_NOTE, count, grid, kept, note, percent, totals
from .layers import reasons

POINTWISE_NOTE = (
    "Most of the error is predicted in 1x1 layers, which have no spatial kernels to share. Where multiply-adds need "
    "not shrink, --recipe accurate keeps such layers in a codebook and loses far less."
)


def plan_report(plan: Plan) -> RenderableType:
    """The families, the layers left alone, and the totals."""
    parts: list[RenderableType] = [family_table(plan), ""] if plan.families else []
    left = [layer for layer in plan.layers if layer.reason is not None]
    if left:
        parts += [
            f"{len(left)} of {len(plan.layers)} layers stay as they are: {_named(left)}",
            *reasons(plan.layers),
            "",
        ]
    if plan.routes:
        parts += [_routing(plan), *_unrouted(plan), ""]
    closing: list[RenderableType] = ["", note(SHARING_NOTE)] if plan.families else []
    advice = [note(POINTWISE_NOTE)] if _loses_at_1x1(plan) else []
    return Group(*parts, totals(plan.original, plan.planned), *closing, *advice)


def family_table(plan: Plan) -> RenderableType:
    """One row a family, in the plan's order: parameters before and after, and its part of the predicted error."""
    layers = {layer.name: layer for layer in plan.layers}
    whole = sum(plan.predicted.values())
    table = grid("family", "scheme", ">layers", ">before", ">after", ">kept", ">of error")
    for family in plan.families:
        owner, *others = family.members
        before = sum(layers[name].params for name in family.members)
        after = plan.stored[owner]
        share = percent(plan.predicted[owner] / whole) if whole and owner in plan.predicted else "-"
        size = (str(len(family.members)), count(before), count(after), kept(after, before))
        table.add_row(f"{owner} …" if others else owner, _scheme(family), *size, share)
    return table


def _scheme(family: Family) -> str:
    """`cp rank 48`: the scheme and the options that say how large it is."""
    sizes = [f"{key} {value}" for key, value in family.options.items() if type(value) is int and value]
    return " ".join([family.scheme, *sizes])


def _loses_at_1x1(plan: Plan) -> bool:
    """Whether 1x1 layers that are kept in another way than by a codebook have more than half of the predicted error."""
    taps = {layer.name: layer.taps for layer in plan.layers}
    others = [family.members[0] for family in plan.families if family.scheme != "codebook"]
    lost = sum(plan.predicted.get(owner, 0.0) for owner in others if taps[owner] == 1)
    return lost > sum(plan.predicted.values()) / 2


def _unrouted(plan: Plan) -> list[RenderableType]:
    """The layers that the routing had to leave out, and why."""
    left = [replace(layer, reason=plan.unrouted[layer.name]) for layer in plan.layers if layer.name in plan.unrouted]
    if not left:
        return []
    return [f"not at {_named(left)}", *reasons(left)]


def _named(layers: Sequence[Layer]) -> str:
    return ", ".join(layer.name for layer in layers[:4]) + (", …" if len(layers) > 4 else "")


def _routing(plan: Plan) -> str:
    """`routing se at 6 layers: 4,608 parameters more`: routing adds, and its price is said."""
    placed = Counter(name for route in plan.routes for name in [route.routing] * len(route.layers))
    at = ", ".join(f"{name} at {layers} layers" for name, layers in placed.items())
    return f"routing {at}: {count(plan.routed)} parameters more"
