"""Checks of a plan before work starts: a plan edited by hand, a request without a budget, layers without moments."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import PlanError
from ..core.specs import Plan
from ..schemes import SCHEMES
from ..stages.analyze.moments import Moments
from ..stages.plan.edited import restate
from ..stages.plan.files import read_plan
from ..stages.plan.knapsack import no_goal
from .job import Job, surveyed_net


def restated(plan: Plan | str | Path, job: Job) -> Plan:
    """A plan from a file or another call, checked against the model. Its totals are computed again."""
    given = plan if isinstance(plan, Plan) else read_plan(plan)
    return restate(given, surveyed_net(job, job.layers), job.recipe)


def require_goal(job: Job, *targets: float | str | None) -> None:
    """Raise the error of `solve` for a missing budget before the calibration, which takes minutes."""
    if job.recipe.budget is not None or any(target is not None for target in targets):
        return
    for assignment in job.assignments:
        scheme = SCHEMES.get(assignment.scheme or "")
        if assignment.reason is None and scheme and scheme.smallest > 0 and scheme.size not in assignment.options:
            raise no_goal(assignment.layer, scheme.size)


def require_moments(plan: Plan, moments: Moments) -> None:
    """Raise PlanError KD503 for a layer of the plan that was not calibrated, since the recipe excludes it."""
    for family in plan.families:
        for name in family.members:
            if name not in moments:
                raise PlanError("KD503", f"the plan converts {name}, which the recipe excludes; add it to `include`")
