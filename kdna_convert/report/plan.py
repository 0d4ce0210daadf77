"""The plan as a table: what every family becomes, to the parameter, and what is left of the net."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType

from ..specs import Family, Plan
from .figures import SHARING_NOTE, count, grid, kept, note, percent, totals
from .layers import reasons


def plan_report(plan: Plan, stored: Mapping[str, int], errors: Mapping[str, float]) -> RenderableType:
    """`stored`: parameters after, and `errors`: predicted error, both by the name of the family's first member."""
    parts: list[RenderableType] = [plan_table(plan, stored, errors), ""]
    left = [layer for layer in plan.layers if layer.reason is not None]
    if left:
        names = ", ".join(layer.name for layer in left[:4]) + (", …" if len(left) > 4 else "")
        parts += [f"{len(left)} of {len(plan.layers)} layers stay as they are: {names}", *reasons(plan.layers), ""]
    parts += [totals(plan.original, plan.planned), note(SHARING_NOTE)]
    return Group(*parts)


def plan_table(plan: Plan, stored: Mapping[str, int], errors: Mapping[str, float]) -> RenderableType:
    """One row a family, in the plan's order."""
    layers = {layer.name: layer for layer in plan.layers}
    whole = sum(errors.values())
    table = grid("family", "scheme", ">layers", ">before", ">after", ">kept", ">of error")
    for family in plan.families:
        owner = family.members[0]
        before = sum(layers[name].params for name in family.members)
        share = percent(errors[owner] / whole) if whole and owner in errors else "-"
        size = (count(before), count(stored[owner]), kept(stored[owner], before))
        table.add_row(_name(family), _scheme(family), str(len(family.members)), *size, share)
    return table


def _name(family: Family) -> str:
    owner, *others = family.members
    return f"{owner} …" if others else owner


def _scheme(family: Family) -> str:
    """`cp rank 48 + se`: the scheme, the options that say how large it is, and the routing."""
    sizes = [f"{key} {value}" for key, value in family.options.items() if type(value) is int and value]
    text = " ".join([family.scheme, *sizes])
    return f"{text} + {family.routing}" if family.routing else text
