"""The verb `curve`: a plan at every budget, to choose a budget from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError
from ..core.measurements import Curve, Divergence
from ..core.progress import as_progress
from ..core.specs import Plan, Progress
from ..inputs.data import Data, batches
from ..inputs.recipe import Recipe
from ..stages.convert.fit import convert as convert_by_plan
from ..stages.plan.database import QUICK
from ..stages.plan.trade_off import SHARES, trade_off
from .cached_database import database_of, known_database
from .cached_moments import moments_of
from .heldout_metrics import measure_of
from .job import open_job
from .keywords import CurveOptions, check_keywords
from .net_task import metric_of
from .nets import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack


def curve(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    shares: Sequence[float] = SHARES,
    measure: bool = False,
    progress: Progress | bool | None = None,
    **options: Unpack[CurveOptions],
) -> Curve:
    """Plan at every share of the parameters: sizes and predicted errors, for a table or a plot.

    Args:
        model: a model name, a converted folder, or a module.
        recipe: a recipe, its name, or its file.
        data: unlabeled images: a path, a tensor of inputs, or batches.
        shares: the shares of the original's parameters.
        measure: also convert at each share, by a quick fit without repair, and measure the divergence on held-out
            images.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: checkpoint, checkpoint_key, checkpoint_prefix, inputs, class_map, data_free, moments, database and
            device, task, outputs and metric, as for `convert`.

    Raises:
        PlanError: as `plan` does.
        DataError: KD401 for `measure` without images.
    """
    check_keywords("curve", options, CurveOptions)
    progress = as_progress(progress)
    job = open_job(model, recipe, data, options, progress)
    if not measure:
        return trade_off(database_of(job, model, data, options, progress), shares=shares)
    divergence_of, metric = measure_of(job), metric_of(options)
    if divergence_of is None:
        raise DataError("KD401", "to measure takes held-out images; pass --data, with calibration.heldout above 0")
    database = known_database(job, model, data, options)  # checked before the calibration
    moments = moments_of(job, options.get("moments"), progress)
    database = database or database_of(job, model, data, options, progress, moments)

    def measured(plan: Plan) -> Divergence:
        net = convert_by_plan(job.loaded.model, plan, moments, sweeps=QUICK, progress=progress)[0]
        found = divergence_of(net)
        if metric is None or job.heldout is None:
            return found
        value = metric(net, batches(job.heldout, job.recipe.calibration.batch))
        return replace(found, measures={**found.measures, "metric": value})

    return trade_off(database, shares=shares, measure=measured)
