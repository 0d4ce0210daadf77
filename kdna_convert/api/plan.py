"""The verb `plan`: the scheme and size of every family under a budget, before anything is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.progress import as_progress
from ..core.specs import Plan, Progress
from ..inputs.data import Data
from ..inputs.recipe import Recipe
from ..stages.plan.budget import refuse_coded
from .board_plans import board_target, decides, require_unrouted, solved
from .cached_database import database_of
from .convert import convert
from .job import open_job
from .keywords import PlanOptions, Targets, check_keywords
from .latency import require_runtime, timed
from .nets import Model
from .plan_checks import require_goal, restated

if TYPE_CHECKING:
    from typing_extensions import Unpack


def plan(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    target_macs: float | str | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[PlanOptions],
) -> Plan:
    """Choose the scheme and rank of every family under a budget: exact parameters and bytes, before any fitting.

    Args:
        model: a model name, a converted folder, or a module.
        recipe: a recipe, its name, or its file. Its budget holds where no target is given.
        data: unlabeled images that the moments are measured on: a path, a tensor of inputs, or batches.
        target_params: share of the original's parameters: 0.5, "50%" or "1/2".
        target_bytes: size of the whole file ("1.2MB"), or a share of the original's ("1/20").
        target_macs: share of the original's multiply-adds, with converted layers run factored.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: as for `convert`. `database` is a file of predicted errors, read where it exists, else written; any
            other budget is solved from it at once. `max_drop` converts at several budgets to find the smallest. A
            `plan` that was edited by hand is checked against the model and its totals are computed again.

    Raises:
        PlanError: KD501 a budget that cannot be met, KD502 or KD503 a plan that is damaged or of another model, KD504
            no budget, KD505 a database of something else.
    """
    check_keywords("plan", options, PlanOptions)
    progress = as_progress(progress)
    targets = Targets(target_params, target_bytes, target_macs, options.get("target_latency"))
    targets.check()
    require_runtime(options)
    on_board = board_target(options)
    if options.get("max_drop") is not None:
        return convert(
            model,
            recipe=recipe,
            data=data,
            target_params=target_params,
            target_bytes=target_bytes,
            target_macs=target_macs,
            progress=progress,
            **options,
        ).plan
    job = open_job(model, recipe, data, options, progress)
    edited = options.get("plan")
    if edited is not None:
        return restated(edited, job)
    refuse_coded(job.recipe, target_bytes)
    require_unrouted(job.recipe, on_board)
    if not decides(on_board):
        require_goal(job, *targets)
    database = database_of(job, model, data, options, progress)
    database = timed(database, job.loaded.model, job.loaded.data, options, progress)
    return solved(job, database, targets, on_board)
