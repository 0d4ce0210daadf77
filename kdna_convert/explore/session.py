"""The state of `kdna explore`: a budget, edits, and what is selected. It knows nothing of the page.

Methods that change the state return what changes on the page, by the keys of explore.js.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

from ..api.explore import Exploration
from ..core.errors import PlanError
from ..core.measurements import Curve
from ..core.specs import Plan
from ..html.steering_view import curve_html, drawn_layers, families_of, legend_html
from ..stages.plan.budget import Kind, PlanBudget
from ..stages.plan.costs import original_totals
from ..stages.plan.edits import Edit, offers_of
from ..stages.plan.expected import expected
from ..stages.plan.steered import BudgetAnswer, Steered, answer, kinds_of, least_of, steered, without
from ..stages.plan.trade_off import SHARES, trade_off
from .editor import editor_of, typed_size
from .steering_outputs import Steering, SteeringOutputs
from .words import amount_text, cost_text, edit_text, figures, problem_text
from .writing_out import GivenOptions

Changes = dict[str, Any]
# The sentence of a net whose agreement is not known.
UNEXPECTED = (
    "No agreement is expected without images, or of a net that is no classifier: the predicted error ranks plans."
)
CURVE = "What is expected at other sizes, with your changes. Lower is better."
NO_CURVE = f"There is no plan with {100 * max(SHARES):.0f} % of the parameters or fewer to compare."
NO_PLAN = "There is no plan at this budget."


@dataclass
class SteeringSession:
    """What the user has asked for, and the plan that follows.

    Attributes:
        exploration: What is steered.
        command: The command line, for the report of a conversion.
        given: Its options that a told command repeats.
        outputs: What was written, and the conversion.
        at: The database with the edits.
        budget: The budget.
        answer: Its plan, or why there is none.
        selected: The layer that is shown.
        asked: The percentage that the budget was asked for as, if it was; the budget is in whole units.
    """

    exploration: Exploration
    command: str = "kdna explore"
    given: GivenOptions = field(default_factory=GivenOptions)
    outputs: SteeringOutputs = field(init=False)
    at: Steered = field(init=False)
    budget: PlanBudget = field(init=False)
    answer: BudgetAnswer = field(init=False)
    selected: str | None = None
    asked: float | None = None

    def __post_init__(self) -> None:
        self.outputs = SteeringOutputs(self.exploration, self.command, self.given)
        self.plain = steered(self.exploration.database)
        self.at, self.budget = self.plain, self.exploration.start
        self.whole = original_totals(self.exploration.database)
        self.answer = answer(self.at, self.budget)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return kinds_of(self.exploration.database, self.exploration.recipe.codec is not None)

    @property
    def plan(self) -> Plan | None:
        return self.answer.plan

    def set_budget(self, kind: Kind, share: float) -> None:
        """Ask for another budget. Raises PlanError KD506 for a kind that there is not."""
        if kind not in self.kinds:
            raise PlanError("KD506", f"there is no budget of {kind}; there are {', '.join(self.kinds)}")
        share = min(max(share, 0.0), 1.0)
        self.budget, self.asked = PlanBudget(kind, int(share * self.whole_of(kind))), round(100 * share, 2)

    def take_nearest(self) -> None:
        """Ask for the smallest budget that can be met."""
        least = self._least
        if least is not None:
            self.budget, self.asked = replace(self.budget, amount=least), None

    def whole_of(self, kind: Kind) -> int:
        return int(getattr(self.whole, kind))

    def edit(self, layers: list[str], offer: int | None, size: object) -> None:
        """Hold layers at a way that the first of them is offered, or dense; at a size as it was typed, None or empty
        for that of the plan. Raises PlanError KD514."""
        chosen = None if offer is None else offers_of(self.exploration.database, layers[0])[offer]
        new = Edit(tuple(layers)) if chosen is None else Edit(tuple(layers), chosen.way, typed_size(chosen.size, size))
        earlier = [replace(one, layers=tuple(n for n in one.layers if n not in layers)) for one in self.at.edits]
        self.at = steered(self.exploration.database, [*(one for one in earlier if one.layers), new])

    def undo(self, place: int) -> None:
        """Take an edit back."""
        if 0 <= place < len(self.at.edits):
            self.at = without(self.at, self.exploration.database, place)

    def solve(self) -> Changes:
        """Solve the plan: what is quick to show."""
        began = time.perf_counter()
        self.answer = answer(self.at, self.budget)
        seconds = time.perf_counter() - began
        kind, amount = self.budget.kind, self.budget.amount
        held = {name for one in self.at.edits for name in one.layers}
        dense = {name for one in self.at.edits if one.way is None for name in one.layers}
        share = math.ceil(1e4 * amount / self.whole_of(kind)) / 100 if self.asked is None else self.asked
        changes: Changes = {
            "budget": {"kind": kind, "share": share, "amount": amount_text(kind, amount, self.whole_of(kind))},
            "problem": None if self.plan is not None else self._problem(),
            "nearest": self._nearest,
            "edited": [place for place, one in enumerate(self.exploration.database.layers) if one.name in held],
            "editor": self._editor(),
        }
        plan = self.plan
        if plan is None:
            none = {"figures": [], "solved": "", "legend": NO_PLAN, "families": NO_PLAN}
            return {**changes, **none, "strips": drawn_layers(self.at.database.layers, None, dense)}
        return {
            **changes,
            "figures": figures(plan, self._expected(plan), self.exploration.folder),
            "solved": f"Solved in {1000 * seconds:.0f} ms." + ("" if self.exploration.expects else f" {UNEXPECTED}"),
            "strips": drawn_layers(plan.layers, plan, dense),
            "legend": str(legend_html(plan)),
            "families": str(families_of(plan)),
        }

    def select(self, place: int | None) -> Changes:
        """Show the layer at this place, to change it."""
        names = [one.name for one in self.exploration.database.layers]
        self.selected = names[place] if place is not None and 0 <= place < len(names) else None
        return {"editor": self._editor()}

    def edits(self) -> Changes:
        """The edits, and what each costs at this budget: the plan without it, beside this one."""
        told = []
        for place, one in enumerate(self.at.edits):
            other = answer(without(self.at, self.exploration.database, place), self.budget).plan
            told.append([edit_text(one), cost_text(self.plan, other, self._expected)])
        return {"edits": told}

    def curve(self) -> Changes:
        """The curve with the edits, and this plan on it."""
        if not self.exploration.expects:
            return {"chart": None, "curve": UNEXPECTED}
        try:
            known: Curve = trade_off(self.at.database, prices=self.at.prices_of("params"))
        except PlanError:
            return {"chart": None, "curve": NO_CURVE + (" Undo a change to see some." if self.at.edits else "")}
        plan, foreseen = self.plan, None if self.plan is None else self._expected(self.plan)
        chosen = (
            None if plan is None or foreseen is None else (plan.planned.params / self.whole.params, foreseen.kl.middle)
        )
        mark = "" if chosen is None else " The square is this plan."
        return {"chart": str(curve_html(known, self.exploration.repaired, chosen)), "curve": CURVE + mark}

    def write(self, what: str, path: str, force: bool) -> Changes:
        """Write a plan or a recipe, or start the conversion. A file that exists is replaced only with `force`."""
        if self.plan is None:
            return {"told": NO_PLAN}
        return self.outputs.write(what, path, force, Steering(self.plan, self.at, self.budget))

    @property
    def _nearest(self) -> str | None:
        kind, least = self.budget.kind, self._least
        return None if least is None else amount_text(kind, least, self.whole_of(kind))

    @property
    def _least(self) -> int | None:
        """The smallest budget that can be met where this one cannot, if it is at most the whole net."""
        if self.plan is not None:
            return None
        least = least_of(self.at, self.budget.kind)
        return None if least is None or least > self.whole_of(self.budget.kind) else least

    def _problem(self) -> str:
        kind, amount = self.budget.kind, self.budget.amount
        plain = least_of(self.plain, kind)
        undo_helps = plain is not None and plain <= amount
        return problem_text(kind, amount, least_of(self.at, kind), self.whole_of(kind), undo_helps)

    def _expected(self, plan: Plan) -> Any:
        return expected(plan, repaired=self.exploration.repaired) if self.exploration.expects else None

    def _editor(self) -> Changes | None:
        if self.selected is None:
            return None
        return editor_of(self.selected, self.exploration.database, self.plan, self.at.edits)
