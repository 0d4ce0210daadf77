"""The verb `convert`: calibrate, plan, fit, repair, and the record of how it came about."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import DataError, ModelError, PlanError
from ..core.progress import as_progress
from ..core.specs import Database, Plan, Progress
from ..inputs.data import Data, batches, check_classes
from ..inputs.recipe import Recipe
from ..network.derive import derive_empty
from ..network.folder import Conversion
from ..network.folder.report import CalibrationReport, FamilyFit, MaxDropReport, Report
from ..network.totals import original_bytes
from ..routing import calibrate_routers
from ..stages.analyze.moments import Moments
from ..stages.convert.fit import SWEEPS, Measure
from ..stages.convert.fit import convert as convert_by_plan
from ..stages.convert.nest import nest
from ..stages.evaluate.accuracy import accuracy, divergence, divergence_from, logits
from ..stages.plan.files import budget_of
from ..stages.plan.knapsack import Budget, solve
from ..stages.plan.max_drop import smallest
from ..stages.plan.routes import routes_note
from ..stages.repair.ledger import Ledger, Position
from .code import code
from .database import database_of, require_goal, require_moments, restated
from .heal import healer, require_images
from .job import Job, Model, moments_of, open_job
from .repair import DATABASE, MOMENTS, fits_of, ledger_of, repair

SETTLING = 16  # images at a time whose kernels a routing looks at, one by one
TUNES = "the recipe fine-tunes as well, which `kdna run` does and `kdna convert` leaves out"


def convert(
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
    work: str | Path | None = None,
    progress: Progress | bool | None = None,
    **given: Any,
) -> Conversion:
    """A converted copy of a model, and the record of how it came about; `save` writes it as a folder.

    Plans first, unless `plan` is given. `max_drop` instead of a budget: the fewest parameters that lose no more than so
    many points of top-1 on the held-back images, or of agreement where these have no labels; every budget tried is
    converted to, repair and all. A stopped run is gone on from what it left in the folder `work`.

    A recipe's `codec` has the last word: `target_bytes` is then the coded file's, and sharing, where the recipe shares,
    takes its size from `target_params`.

    Further keywords: `checkpoint` (weights file), `inputs` (fields of DataConfig that go over the model's own),
    `class_map`, `data_free` (use images only to measure), `moments` (file: read where it exists, else written),
    `device` ("auto", "cpu", "cuda" ...). Raises what the stages raise; see errors.CODES.
    """
    progress = as_progress(progress)
    began = time.perf_counter()
    require_net(model)
    goals = (target_params, target_bytes, target_macs, max_drop)
    if plan is not None and goals != (None, None, None, None):
        raise PlanError("KD506", "a plan says how large everything is; give a plan or a budget, not both")
    if max_drop is not None and goals[:3] != (None, None, None):
        raise PlanError("KD506", "max_drop finds the size by itself; give it or a budget, not both")
    job = open_job(model, recipe, data, given, progress)
    require_images(job)
    coded = job.recipe.codec
    if job.recipe.at_size(size_of(job.recipe, target_bytes), original_bytes(job.loaded.model)).finetune is not None:
        job.notes.append(TUNES)
    if plan is None:
        require_goal(job, target_params, None if coded else target_bytes, target_macs, max_drop)
    place = None if work is None else Path(work)
    if place is not None and job.recipe.repair:
        place.mkdir(parents=True, exist_ok=True)
        given["moments"] = given.get("moments") or place / MOMENTS
        database = database or place / DATABASE
    moments = moments_of(job, given, progress)
    if plan is not None:
        found = _made(job, restated(plan, job), moments, place, began, progress)
    else:
        known = database_of(job, model, data, database, given, progress, moments)
        if max_drop is not None:
            found = _smallest(job, known, moments, max_drop, place, began, progress)
        else:
            asked = (None if coded else target_bytes, target_macs)
            planned = solve(known, budget_of(known, without_bytes(job.recipe), target_params, *asked))
            found = _made(job, planned, moments, place, began, progress)
    if not coded:
        return found
    return code(
        found,
        codec=coded,
        target_bytes=size_of(job.recipe, target_bytes),
        data=data,
        class_map=given.get("class_map"),
        seed=job.recipe.seed,
        device=given.get("device") or "auto",
        progress=progress,
    )


def require_net(model: Model) -> None:
    """Raises ModelError KD302 for a folder, which is what a conversion makes and not what it takes."""
    if isinstance(model, str | Path) and Path(model).is_dir():
        way_out = f"name the net that it was made from, or local-dir:{model} for timm's own kind of folder"
        raise ModelError("KD302", f"{model} is a folder, and a converted net is not converted again; {way_out}")


def size_of(recipe: Recipe, target_bytes: int | str | None) -> int | str | None:
    """The size of the file that is asked for, else the recipe's."""
    return target_bytes if recipe.budget is None or target_bytes is not None else recipe.budget.bytes


def without_bytes(recipe: Recipe) -> Recipe:
    """The recipe as sharing sees it: with a codec, a budget in bytes is the codec's to meet."""
    if recipe.codec is None or recipe.budget is None or recipe.budget.bytes is None:
        return recipe
    return recipe.model_copy(update={"budget": None})


def _smallest(
    job: Job,
    known: Database,
    moments: Moments,
    max_drop: float,
    work: Path | None,
    began: float,
    progress: Progress | None,
) -> Conversion:
    """The conversion to the fewest parameters that loses no more than `max_drop` points."""
    lost, by = _points_lost(job)

    def attempt(share: float) -> tuple[Conversion, float]:
        planned = solve(known, Budget("params", int(share * known.params)))
        made = _made(replace(job, notes=[*job.notes]), planned, moments, work, began, progress)
        return made, lost(made.model)

    found = smallest(attempt, max_drop)
    result = found.result
    return replace(result, report=replace(result.report, max_drop=MaxDropReport(max_drop, by, found.trials)))


def _made(
    job: Job, plan: Plan, moments: Moments, work: Path | None, began: float, progress: Progress | None
) -> Conversion:
    """The conversion by a plan: fitted, repaired, measured after every stage."""
    require_moments(plan, moments)
    planned = time.perf_counter()
    if plan.unrouted:
        job.notes.append(routes_note(plan.unrouted))
    measure = measure_of(job)
    ledger = ledger_of(job, plan, work)
    converted, fits, position = _fitted(job, plan, moments, measure, ledger, progress)
    fitted = time.perf_counter()
    stages = {} if measure is None or position is not None else {"convert": measure(converted)}
    mended = repair(job, converted, fits, measure, ledger, position, progress)
    for one in mended:
        stages.setdefault("convert", one.before)
        if one.kept and one.after is not None:
            stages[one.step] = one.after
    if job.recipe.nested:
        plan, left = nest(converted, plan, job.loaded.model, moments)
        job.notes.extend(left)
    seconds = {"calibrate and plan": planned - began, "fit": fitted - planned}
    if mended:
        seconds["repair"] = sum(one.seconds for one in mended)
    skipped = () if job.calibration is None else tuple(job.calibration.skipped)
    report = Report(
        stages=stages,
        divergence=list(stages.values())[-1] if stages else None,
        families=fits,
        repair=mended,
        calibration=CalibrationReport(len(job.calibration or ()), skipped),
        seconds={name: round(value, 2) for name, value in seconds.items()},
        notes=tuple(job.notes),
    )
    return Conversion(converted, plan, job.loaded.data, job.recipe.text, report)


def _fitted(
    job: Job, plan: Plan, moments: Moments, measure: Measure | None, ledger: Ledger | None, progress: Progress | None
) -> tuple[nn.Module, tuple[FamilyFit, ...], Position | None]:
    """The converted net: fitted, or as a stopped run left it, and then where that was."""
    if ledger is not None and ledger.path.exists():
        converted = derive_empty(copy.deepcopy(job.loaded.model), plan)
        position = ledger.read(converted)
        if position is not None:
            return converted.eval(), fits_of(position), position
    sweeps = job.recipe.fit.sweeps or SWEEPS
    heal = healer(job, progress)
    converted, fits = convert_by_plan(
        job.loaded.model, plan, moments, sweeps=sweeps, measure=measure, heal=heal, progress=progress
    )
    if job.calibration is not None:
        calibrate_routers(converted, (inputs for inputs, _ in batches(job.calibration, SETTLING)), plan.seed)
    return converted, fits, None


def measure_of(job: Job) -> Measure | None:
    """The divergence of a net from the original on the held-back images; the original's answers are worked out once."""
    if job.heldout is None:
        return None
    return divergence_from(
        job.loaded.model, [inputs for inputs, _ in batches(job.heldout, job.recipe.calibration.batch)]
    )


def _points_lost(job: Job) -> tuple[Callable[[nn.Module], float], str]:
    """How many points a net has lost on the held-back images, and by what: top-1, or agreement without labels."""
    if job.heldout is None:
        raise DataError(
            "KD401", "a drop is measured on held-back images; pass --data, with calibration.heldout above 0"
        )
    seen = list(batches(job.heldout, job.recipe.calibration.batch))
    inputs = [images for images, _ in seen]
    z0 = logits(job.loaded.model, inputs)
    known = [labels for _, labels in seen if labels is not None]
    labels = torch.cat(known) if len(known) == len(seen) and _fit_outputs(job, z0) else None

    def lost(net: nn.Module) -> float:
        z = logits(net, inputs)
        if labels is None:
            return 100 * (1 - divergence(z, z0).agreement)
        return 100 * (accuracy(z0, labels)[0] - accuracy(z, labels)[0])

    return lost, "agreement" if labels is None else "top-1"


def _fit_outputs(job: Job, logits_bc: Tensor) -> bool:
    """Whether the folders' classes are the net's outputs."""
    if job.heldout is None or logits_bc.ndim != 2:
        return False
    try:
        check_classes(job.heldout, logits_bc.shape[1])
    except DataError:
        return False
    return True
