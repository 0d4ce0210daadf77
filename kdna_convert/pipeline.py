"""The stages in order, from a model's name to a conversion: what the Python API and the commands call.

    load -> survey -> calibrate -> analyze -> plan -> convert -> evaluate

Every function takes MODEL as a string (see models/names.py), a converted folder where that makes sense, or an
nn.Module; DATA as a path, a tensor, or batches (see data/). Nothing is written here: `save` does that.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .analyze import analyze as compare_layers
from .benchmark import Timing
from .benchmark import benchmark as time_nets
from .checkpoint import Conversion, open_folder, original_of
from .convert import SWEEPS, Measure
from .convert import convert as convert_by_plan
from .data import Data, batches, check_classes, split
from .derive import factor, fold
from .errors import FolderError, KdnaError, ModelError, PlanError
from .evaluate import Evaluation, answers, divergence, logits
from .evaluate import evaluate as evaluate_net
from .filesize import metadata
from .finetune import finetune as finetune_net
from .job import Job, Model, conversion_of, device_of_name, images_of, load_any, moments_of, open_job
from .models import example_input, override
from .plan import solve
from .planfile import budget_of
from .planning import database_of, require_goal, require_moments, restated
from .recipe import Recipe
from .schemes import SCHEMES
from .specs import Analysis, DataConfig, Layer, Plan, Progress


def analyze(
    model: Model,
    *,
    recipe: Recipe | str = "shared-cp",
    metric: str | None = None,
    data: Data | str | Path | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Analysis:
    """Every layer, the groups that could share under the recipe's scheme, and how alike their members are.

    `given`: checkpoint, inputs, class_map, data_free, moments, device, as in `convert`.
    """
    job = open_job(model, recipe, data, given, progress)
    moments = moments_of(job, given, progress)
    families = job.recipe.families
    by_name = {assignment.layer: assignment for assignment in job.assignments}

    def key(layer: Layer) -> object:
        assignment = by_name[layer.name]
        return assignment.scheme, SCHEMES[assignment.scheme or "cp"]().group(layer.shape), layer.groups

    return compare_layers(
        job.loaded.model,
        job.layers,
        moments,
        group=key,
        metric=metric or families.metric,
        linkage=families.linkage,
        threshold=families.threshold,
        families=families.count,
        progress=progress,
    )


def plan(
    model: Model,
    *,
    recipe: Recipe | str = "shared-cp",
    plan: Plan | str | Path | None = None,
    data: Data | str | Path | None = None,
    target_params: float | None = None,
    target_bytes: int | str | None = None,
    target_macs: float | None = None,
    database: str | Path | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Plan:
    """The scheme and rank of every family under a budget: exact parameters and bytes, before any fitting.

    Budgets are shares of the original net (`target_params`, `target_macs`) or bytes of the file; without one, the
    recipe's. `database` is a file of predicted errors, read where it exists, else written: from it, any other budget is
    solved at once. A `plan` that was edited by hand is checked against the model and totalled anew instead. `given`:
    checkpoint, inputs, class_map, data_free, moments, device, as in `convert`. Raises PlanError KD501 (cannot be met),
    KD502, KD503 (no plan, or not of this model), KD504 (no budget at all), KD505 (a database of something else).
    """
    job = open_job(model, recipe, data, given, progress)
    if plan is not None:
        return restated(plan, job)
    require_goal(job, target_params, target_bytes, target_macs)
    known = database_of(job, model, data, database, given, progress)
    return solve(known, budget_of(known, job.recipe, target_params, target_bytes, target_macs))


def convert(
    model: Model,
    *,
    recipe: Recipe | str = "shared-cp",
    plan: Plan | str | Path | None = None,
    data: Data | str | Path | None = None,
    target_params: float | None = None,
    target_bytes: int | str | None = None,
    target_macs: float | None = None,
    database: str | Path | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Conversion:
    """A converted copy of a model, and the record of how it came about; `save` writes it as a folder.

    Plans first, unless `plan` is given. Further keywords: `checkpoint` (weights file), `inputs` (fields of DataConfig
    that go over the model's own), `class_map`, `data_free` (use images only to measure), `moments` (file: read where
    it exists, else written), `device` ("auto", "cpu", "cuda" ...). Raises what the stages raise; see errors.CODES.
    """
    began = time.perf_counter()
    if isinstance(model, str | Path) and Path(model).is_dir():
        way_out = f"name the net that it was made from, or local-dir:{model} for timm's own kind of folder"
        raise ModelError("KD302", f"{model} is a folder, and a converted net is not converted again; {way_out}")
    if plan is not None and (target_params, target_bytes, target_macs) != (None, None, None):
        raise PlanError("KD506", "a plan says how large everything is; give a plan or a budget, not both")
    job = open_job(model, recipe, data, given, progress)
    if plan is None:
        require_goal(job, target_params, target_bytes, target_macs)
    moments = moments_of(job, given, progress)
    if plan is None:
        known = database_of(job, model, data, database, given, progress, moments)
        plan = solve(known, budget_of(known, job.recipe, target_params, target_bytes, target_macs))
    else:
        plan = restated(plan, job)
    require_moments(plan, moments)
    planned = time.perf_counter()
    measure = _measure(job, progress)
    sweeps = job.recipe.fit.sweeps or SWEEPS
    converted, fits = convert_by_plan(
        job.loaded.model, plan, moments, sweeps=sweeps, measure=measure, progress=progress
    )
    seconds = {"calibrate and plan": planned - began, "fit": time.perf_counter() - planned}
    stages = {} if measure is None else {"convert": asdict(measure(converted))}
    report = {
        "stages": stages,
        "divergence": stages.get("convert"),
        "families": [asdict(fit) for fit in fits],
        "calibration": {"images": len(job.calibration or ()), "skipped": _skipped(job)},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "notes": job.notes,
    }
    return Conversion(converted, plan, job.loaded.data, job.recipe.text, report)


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
    progress: Progress | None = None,
) -> Evaluation:
    """Accuracy on labelled images; of a conversion or its folder also agreement with the original, and divergence.

    Without the original's weights those are None. Raises DataError KD401, KD402.
    """
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
        check_classes(images, _outputs(net, config))
    found = evaluate_net(
        net, batches(images, batch), original=teacher, metadata=said, device=device_of_name(device), progress=progress
    )
    return replace(found, skipped=tuple(images.skipped))


def finetune(
    folder: str | Path | Conversion,
    *,
    data: Data | str | Path,
    class_map: str | Path | None = None,
    train: Literal["adapters", "shared", "all"] = "adapters",
    epochs: int = 5,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Conversion:
    """Train a conversion's adapters towards the original's answers; labels are not used. Returns another conversion.

    Raises FolderError KD607 when the original cannot be rebuilt, NumericsError KD703 when the loss is not finite.
    """
    before = folder if isinstance(folder, Conversion) else open_folder(folder)
    student = copy.deepcopy(before.model)
    teacher = original_of(before.plan.model).model
    images = images_of(data, before.data, class_map, None, seed)
    held, rest = split(images, [min(500, len(images) // 5), len(images) - min(500, len(images) // 5)], seed)
    tuned = finetune_net(
        student,
        teacher,
        rest,
        heldout=held if len(held) else None,
        train=train,
        epochs=epochs,
        lr=lr,
        seed=seed,
        device=device_of_name(device),
        progress=progress,
    )
    stages = dict(before.report.get("stages", {}))
    if len(held):
        z0 = logits(teacher, batches(held, 100))
        stages["finetune"] = asdict(divergence(logits(student, batches(held, 100)), z0))
    report = {**before.report, "stages": stages, "finetune": asdict(tuned)}
    report["divergence"] = stages.get("finetune", report.get("divergence"))
    return replace(before, model=student.cpu().eval(), report=report)


def benchmark(
    model: Model,
    *,
    checkpoint: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    batch: int = 1,
    rounds: int = 30,
    threads: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Sequence[Timing]:
    """The net's four numbers; of a converted folder those of the original, the converted, folded and factored net."""
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
    return time_nets(
        nets, example, rounds=rounds, threads=threads, device=device_of_name(device), metadata=said, progress=progress
    )


def _measure(job: Job, progress: Progress | None) -> Measure | None:
    """The divergence of a net from the original on the held-back images; the original's answers are worked out once."""
    if job.heldout is None:
        return None
    inputs = [inputs for inputs, _ in batches(job.heldout, job.recipe.calibration.batch)]
    z0: Tensor = logits(job.loaded.model, inputs)

    def measure(net: nn.Module) -> Any:
        return divergence(logits(net, inputs), z0)

    return measure


def _teacher(conversion: Conversion, checkpoint: str | None) -> nn.Module | None:
    ref = conversion.plan.model
    try:
        return original_of(replace(ref, checkpoint=checkpoint) if checkpoint else ref).model
    except KdnaError:
        if checkpoint:
            raise
        return None


def _outputs(net: nn.Module, config: DataConfig) -> int:
    with torch.no_grad():
        return int(answers(net(example_input(config)), 1).shape[1])


def _skipped(job: Job) -> list[str]:
    return [] if job.calibration is None else job.calibration.skipped
