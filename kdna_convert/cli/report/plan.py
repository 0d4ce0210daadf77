"""The result of `kdna plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType

from ...core.amounts import count, kept, percent
from ...core.measurements import ExpectedCost
from ...core.specs import Family, Layer, Plan
from .expected import expected_lines
from .figures import SHARING_NOTE, board_limits, grid, note, totals
from .layers import layer_count, reasons

POINTWISE_NOTE = (
    "Most of the predicted error is in 1x1 layers, which have no spatial kernels to share. If MACs need not shrink, "
    "use --recipe accurate: it stores such layers in a codebook, at a much smaller error."
)


def plan_report(plan: Plan, repaired: bool | None = None) -> RenderableType:
    """The families, the skipped layers, and the sizes; with `repaired`, also the expected divergence."""
    parts: list[RenderableType] = [family_table(plan), ""] if plan.families else []
    left = [layer for layer in plan.layers if layer.reason is not None]
    if left:
        parts += [
            f"{len(left)} of {len(plan.layers)} layers are skipped: {_named(left)}",
            *reasons(plan.layers),
            "",
        ]
    if plan.routes:
        parts += [_routing(plan), *_unrouted(plan), ""]
    closing: list[RenderableType] = ["", note(SHARING_NOTE)] if plan.families else []
    advice = [note(POINTWISE_NOTE)] if _loses_at_1x1(plan) else []
    expected = [] if repaired is None else expected_lines(plan, repaired)
    return Group(*parts, totals(plan.original, plan.planned), *expected, *board_lines(plan), *closing, *advice)


def board_lines(plan: Plan) -> list[RenderableType]:
    """What the plan takes of the device that it was made for."""
    if plan.board is None:
        return []
    where = "any board" if plan.board.board is None else plan.board.board
    heading = f"on {where} in {plan.board.arithmetic}, for one image:"
    fits = "" if plan.families else "The net keeps these limits as it is: no layer is converted."
    return ["", heading, board_limits(plan.board), *([fits] if fits else [])]


def family_table(plan: Plan) -> RenderableType:
    """One row per family: parameters before and after, and its share of the predicted error."""
    layers = {layer.name: layer for layer in plan.layers}
    whole = sum(plan.predicted.values())
    table = grid("family", "scheme", ">layers", ">before", ">after", ">kept", ">error share")
    for family in plan.families:
        owner, *others = family.members
        before = sum(layers[name].params for name in family.members)
        after = plan.stored[owner]
        share = percent(plan.predicted[owner] / whole) if whole and owner in plan.predicted else "-"
        size = (str(len(family.members)), count(before), count(after), kept(after, before))
        table.add_row(f"{owner} …" if others else owner, _scheme(family), *size, share)
    return table


def _scheme(family: Family) -> str:
    """`cp rank 48`: the scheme and the options that decide its size."""
    sizes = [f"{key} {value}" for key, value in family.options.items() if type(value) is int and value]
    return " ".join([family.scheme, *sizes])


def _loses_at_1x1(plan: Plan) -> bool:
    """Whether 1x1 layers outside codebooks have more than half of the predicted error."""
    taps = {layer.name: layer.taps for layer in plan.layers}
    others = [family.members[0] for family in plan.families if family.scheme != "codebook"]
    lost = sum(plan.predicted.get(owner, 0.0) for owner in others if taps[owner] == 1)
    return lost > sum(plan.predicted.values()) / 2


def _unrouted(plan: Plan) -> list[RenderableType]:
    """The layers that the routing skips, and why."""
    left = [replace(layer, reason=plan.unrouted[layer.name]) for layer in plan.layers if layer.name in plan.unrouted]
    if not left:
        return []
    return [f"the routing skips {layer_count(len(left))}: {_named(left)}", *reasons(left)]


def _named(layers: Sequence[Layer]) -> str:
    return ", ".join(layer.name for layer in layers[:4]) + (", …" if len(layers) > 4 else "")


def _routing(plan: Plan) -> str:
    """`routing se on 6 layers adds 4,608 parameters`."""
    placed = Counter(name for route in plan.routes for name in [route.routing] * len(route.layers))
    on = ", ".join(f"{name} on {layer_count(layers)}" for name, layers in placed.items())
    return f"routing {on} adds {count(plan.routed)} parameters"


def cost_line(cost: ExpectedCost) -> str:
    """`expected: about 3 min and 2.1 GB on this machine (2 cores)`."""
    length = f"{max(1, round(cost.seconds))} s" if cost.seconds < 90 else f"{round(cost.seconds / 60)} min"
    cores = "1 core" if cost.cores == 1 else f"{cost.cores} cores"
    return f"expected: about {length} and {cost.bytes / 1e9:.1f} GB on this machine ({cores})"
