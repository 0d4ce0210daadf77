"""The stages in order, from a model's name to a conversion: what the Python API and the commands call.

    load -> survey -> calibrate -> analyze -> plan -> convert -> evaluate

Every function takes MODEL as a string (see models/names.py), a converted folder where that makes sense, or an
nn.Module; DATA as a path, a tensor, or batches (see data/). Nothing is written here: `save` does that.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..core.errors import DataError, FolderError, KdnaError
from ..core.filesize import metadata
from ..core.progress import as_progress
from ..core.specs import Analysis, Curve, Divergence, Evaluation, Layer, Plan, Progress
from ..inputs.data import Data, batches, check_classes
from ..inputs.models import example_input, override
from ..inputs.recipe import Recipe
from ..network.derive import factor, fold
from ..network.folder import Conversion, original_of
from ..schemes import make
from ..stages.analyze.groups import Clustering
from ..stages.analyze.groups import analyze as compare_layers
from ..stages.convert.fit import convert as convert_by_plan
from ..stages.evaluate.accuracy import evaluate as evaluate_net
from ..stages.evaluate.timing import Timing
from ..stages.evaluate.timing import benchmark as time_nets
from ..stages.plan.curve import SHARES
from ..stages.plan.curve import curve as trade_off
from ..stages.plan.database import QUICK
from ..stages.plan.files import budget_of
from ..stages.plan.knapsack import solve
from .convert import convert as convert
from .convert import measure_of
from .database import database_of, require_goal, restated
from .job import Model, conversion_of, device_of_name, images_of, load_any, moments_of, open_job, outputs_of


def analyze(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    metric: str | None = None,
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **given: Any,
) -> Analysis:
    """Every layer, the groups that could share under the recipe's scheme, and how alike their members are.

    `given`: checkpoint, inputs, class_map, data_free, moments, device, as in `convert`.
    """
    progress = as_progress(progress)
    job = open_job(model, recipe, data, given, progress)
    moments = moments_of(job, given, progress)
    families = job.recipe.families
    by_name = {assignment.layer: assignment for assignment in job.assignments}

    def key(layer: Layer) -> object:
        assignment = by_name[layer.name]
        scheme = make(assignment.scheme or "cp", assignment.options if assignment.scheme else {})
        return assignment.scheme, scheme.group(layer.shape), layer.groups

    return compare_layers(
        job.loaded.model,
        job.layers,
        moments,
        group=key,
        clustering=Clustering(metric or families.metric, families.linkage, families.threshold, families.count),
        progress=progress,
    )


def plan(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    plan: Plan | str | Path | None = None,
    data: Data | str | Path | None = None,
    target_params: float | None = None,
    target_bytes: int | str | None = None,
    target_macs: float | None = None,
    max_drop: float | None = None,
    database: str | Path | None = None,
    progress: Progress | bool | None = None,
    **given: Any,
) -> Plan:
    """The scheme and rank of every family under a budget: exact parameters and bytes, before any fitting.

    Budgets are shares of the original net (`target_params`, `target_macs`) or bytes of the file; without one, the
    recipe's. `database` is a file of predicted errors, read where it exists, else written: from it, any other budget is
    solved at once. `max_drop` instead of a budget takes conversions, as in `convert`. A `plan` that was edited by hand
    is checked against the model and totalled anew instead.

    `given`: checkpoint, inputs, class_map, data_free, moments, device, as in `convert`. Raises PlanError KD501 (cannot
    be met),
    KD502, KD503 (no plan, or not of this model), KD504 (no budget at all), KD505 (a database of something else).
    """
    progress = as_progress(progress)
    if max_drop is not None:
        goals = {"target_params": target_params, "target_bytes": target_bytes, "target_macs": target_macs}
        asked: dict[str, Any] = {**goals, **given, "plan": plan, "database": database, "progress": progress}
        return convert(model, recipe=recipe, data=data, max_drop=max_drop, **asked).plan
    job = open_job(model, recipe, data, given, progress)
    if plan is not None:
        return restated(plan, job)
    require_goal(job, target_params, target_bytes, target_macs)
    known = database_of(job, model, data, database, given, progress)
    return solve(known, budget_of(known, job.recipe, target_params, target_bytes, target_macs))


def curve(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    shares: Sequence[float] = SHARES,
    measure: bool = False,
    database: str | Path | None = None,
    progress: Progress | bool | None = None,
    **given: Any,
) -> Curve:
    """The plan at every share of the parameters: sizes and predicted error, for a table or a plot.

    With `measure`, each is converted to by a quick fit, without repair, and its divergence measured on the held-back
    images. `given`: as in `convert`. Raises as `plan` does, and DataError KD401 for `measure` without images.
    """
    progress = as_progress(progress)
    job = open_job(model, recipe, data, given, progress)
    if not measure:
        return trade_off(database_of(job, model, data, database, given, progress), shares=shares)
    divergence_of = measure_of(job)
    if divergence_of is None:
        raise DataError("KD401", "to measure takes held-back images; pass --data, with calibration.heldout above 0")
    moments = moments_of(job, given, progress)
    known = database_of(job, model, data, database, given, progress, moments)

    def measured(plan: Plan) -> Divergence:
        return divergence_of(convert_by_plan(job.loaded.model, plan, moments, sweeps=QUICK, progress=progress)[0])

    return trade_off(known, shares=shares, measure=measured)


def evaluate(
    model: Model | Conversion,
    *,
    data: Data | str | Path,
    class_map: str | Path | None = None,
    checkpoint: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch: int = 100,
    device: str = "auto",
    progress: Progress | bool | None = None,
) -> Evaluation:
    """Accuracy on labelled images; of a conversion or its folder also agreement with the original, and divergence.

    Without the original's weights those are None. Raises DataError KD401, KD402.
    """
    progress = as_progress(progress)
    conversion = conversion_of(model)
    teacher: nn.Module | None = None
    if conversion is None:
        loaded = load_any(cast("Model", model), checkpoint, inputs)
        net, config, said = loaded.model, loaded.data, None
    else:
        net, config = conversion.model, conversion.data
        config = override(config, **inputs) if inputs else config
        said = metadata(conversion.plan.model, conversion.recipe)
        teacher = _teacher(conversion, checkpoint)
    images = images_of(data, config, class_map, limit, seed)
    if images.labelled:
        check_classes(images, outputs_of(net, config))
    found = evaluate_net(
        net, batches(images, batch), original=teacher, metadata=said, device=device_of_name(device), progress=progress
    )
    if conversion is not None and conversion.coded is not None:
        found = replace(found, bytes=conversion.plan.planned.bytes)
    images.gather_skipped()
    return replace(found, skipped=tuple(images.skipped))


def benchmark(
    model: Model,
    *,
    checkpoint: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    batch: int = 1,
    rounds: int = 30,
    threads: int | None = None,
    device: str = "auto",
    progress: Progress | bool | None = None,
) -> Sequence[Timing]:
    """The net's four numbers; of a converted folder those of the original, the converted, folded and factored net."""
    progress = as_progress(progress)
    conversion = conversion_of(model)
    said: dict[str, Mapping[str, str]] = {}
    if conversion is None:
        loaded = load_any(model, checkpoint, inputs)
        nets, config = {"model": loaded.model}, loaded.data
    else:
        config = override(conversion.data, **inputs) if inputs else conversion.data
        teacher = _teacher(conversion, checkpoint)
        nets = {} if teacher is None else {"original": teacher}
        nets["converted"] = conversion.model
        said["converted"] = metadata(conversion.plan.model, conversion.recipe)
        for name, form in (("folded", fold), ("factored", factor)):
            try:
                nets[name] = form(copy.deepcopy(conversion.model))
            except FolderError:  # a gate that has learned something has no such form
                continue
    example = example_input(config, batch)
    rows = time_nets(
        nets, example, rounds=rounds, threads=threads, device=device_of_name(device), metadata=said, progress=progress
    )
    if conversion is None or conversion.coded is None:
        return rows
    size = conversion.plan.planned.bytes
    return tuple(replace(row, bytes=size) if row.name == "converted" else row for row in rows)


def _teacher(conversion: Conversion, checkpoint: str | None) -> nn.Module | None:
    ref = conversion.plan.model
    try:
        return original_of(replace(ref, checkpoint=checkpoint) if checkpoint else ref).model
    except KdnaError:
        if checkpoint:
            raise
        return None
