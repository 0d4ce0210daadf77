"""What the page says of plans, budgets and edits."""

from __future__ import annotations

from collections.abc import Callable

from ..core.amounts import count, kept, milliseconds, percent, short, size
from ..core.errors import CODES
from ..core.shown import shown
from ..core.specs import Family, Plan
from ..html.steering_view import KEPT_DENSE, plain
from ..stages.plan.budget import Kind
from ..stages.plan.edits import Edit
from ..stages.plan.expected import Expected

NAMES: dict[Kind, str] = {
    "params": "parameters",
    "bytes": "bytes of the file",
    "macs": "MACs, run factored",
    "latency": "time",
}
_AMOUNTS: dict[Kind, Callable[[int], str]] = {
    "params": lambda amount: f"{count(amount)} parameters",
    "bytes": size,
    "macs": lambda amount: f"{short(amount)} MACs",
    "latency": milliseconds,
}
NAMED = 3  # layers of an edit that are named


def amount_text(kind: Kind, amount: int, whole: int) -> str:
    """`426,307 parameters, 50.0 % of the original`."""
    return f"{_AMOUNTS[kind](amount)}, {kept(amount, whole)} of the original"


def problem_text(kind: Kind, amount: int, nearest: int | None, whole: int, undo_helps: bool) -> str:
    """Why a budget has no plan, and what can be done on the page. `nearest` is the least amount that has one, if any
    has; `undo_helps` tells whether the budget can be met without the user's changes."""
    cannot = f"A budget of {_AMOUNTS[kind](amount)} ({kept(amount, whole)} of the original) cannot be met."
    if nearest is None:
        return f"{cannot} No plan at all keeps your changes. Undo one."
    least = f"The smallest that can be met is {_AMOUNTS[kind](nearest)} ({kept(nearest, whole)})."
    ways = ["Undo a change"] * undo_helps + ["raise the budget"] * (nearest <= whole)
    advice = " or ".join(ways) or "choose another measure"
    return f"{cannot} {least} {advice[0].upper()}{advice[1:]}."


def figures(plan: Plan, foreseen: Expected | None, folder: Plan | None) -> list[tuple[str, str, str]]:
    """Names, values and remarks of a plan's figures."""
    one, other = plan.planned, plan.original
    rows = [
        ("parameters", count(one.params), kept(one.params, other.params)),
        ("file", size(one.bytes), kept(one.bytes, other.bytes)),
        ("MACs, run factored", short(one.macs), kept(one.macs, other.macs)),
    ]
    if one.latency is not None and other.latency is not None:
        rows.append(("time, run factored", milliseconds(one.latency), kept(one.latency, other.latency)))
    if foreseen is not None:
        agreement, kl = foreseen.agreement, foreseen.kl
        spread = f"{100 * agreement.low:.0f} to {100 * agreement.high:.0f} %"
        rows.append(("expected agreement", percent(agreement.middle), spread))
        rows.append(("expected KL, nats", _nats(kl.middle), f"{_nats(kl.low)} to {_nats(kl.high)}"))
    if plan.predicted:
        own = 0.0 if folder is None else sum(folder.predicted.values())
        remark = f"the folder's: {own:.3g}" if own else "of all layers, weighted"
        rows.append(("predicted error", f"{sum(plan.predicted.values()):.3g}", remark))
    rows.append(("converted", f"{sum(len(each.members) for each in plan.families)} layers", f"of {len(plan.layers)}"))
    return rows


def _nats(kl: float) -> str:
    """Two significant digits, not below a thousandth."""
    return "<0.001" if kl < 0.001 else f"{kl:.2g}"


def edit_text(edit: Edit) -> str:
    """`layer1.0.conv1: dense`."""
    named = ", ".join(map(shown, edit.layers[:NAMED]))
    more = f" and {len(edit.layers) - NAMED} more" if len(edit.layers) > NAMED else ""
    how = "dense" if edit.way is None else edit.way.text
    return f"{named}{more}: {how}" + ("" if edit.size is None else f", size {edit.size}")


def cost_text(plan: Plan | None, other: Plan | None, foresee: Callable[[Plan], Expected | None]) -> str:
    """What an edit costs: this plan beside the one without it, of the same budget."""
    if plan is None:
        return (
            "No plan keeps it at this budget."
            if other is not None
            else "There is no plan at this budget without it either."
        )
    if other is None:
        return "Without it there is no plan at this budget."
    here, there = foresee(plan), foresee(other)
    parts = []
    if here is not None and there is not None:
        lost = 100 * (there.agreement.middle - here.agreement.middle)
        parts.append(f"{_signed(-lost, 2)} points of expected agreement")
    before, after = sum(other.predicted.values()), sum(plan.predicted.values())
    if before > 0:
        parts.append(f"predicted error {_signed(100 * (after / before - 1), 1)} %")
    parts.append(f"{_signed(plan.planned.params - other.planned.params, 0)} parameters")
    return "Costs at this budget: " + ", ".join(parts)


def _signed(number: float, digits: int) -> str:
    rounded = round(number, digits)
    return "±0" if rounded == 0 else f"{rounded:+,.{digits}f}"


def stored_text(family: Family | None, held: Edit | None, reason: str | None, convertible: bool, solved: bool) -> str:
    """What becomes of a layer, and who decided that. `solved` tells whether there is a plan."""
    if held is not None and held.way is None:
        return KEPT_DENSE
    if family is not None:
        options = ", ".join(f"{name} {value}" for name, value in family.options.items() if value is not None)
        others = len(family.members) - 1
        shared = f", with {others} other layer{'' if others == 1 else 's'}" if others else ", alone"
        return f"Stored as {family.scheme}, {options}{shared}.{'' if held is None else ' You asked for that.'}"
    if not convertible and reason is not None:
        return f"Kept dense, and cannot be converted here. {reason}: {plain(CODES[reason])}"
    if not solved:
        return "There is no plan at this budget."
    return "Kept dense by the plan: at this budget, parameters save more error here than elsewhere."
