"""The verb `convert`: calibrate, plan, fit, repair, and the record of how it came about."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.choices import Database
from ..core.errors import ModelError, PlanError
from ..core.measurements import Divergence
from ..core.progress import as_progress
from ..core.specs import Plan, Progress
from ..inputs.data import Data, batches
from ..inputs.recipe import Recipe
from ..network.derive import derive_empty
from ..network.folder import Conversion, Origin
from ..network.folder.report import CalibrationReport, FamilyFit, MaxDropReport, Report, StepResult
from ..network.totals import original_bytes
from ..routing import calibrate_routers
from ..stages.analyze.moments import Moments
from ..stages.boards import BoardTarget
from ..stages.convert.fit import Measure
from ..stages.convert.fit import convert as convert_by_plan
from ..stages.convert.nest import nest
from ..stages.plan.budget import PlanBudget
from ..stages.plan.max_drop import smallest
from ..stages.plan.routes import routes_note
from ..stages.plan.trade_off import trade_off
from ..stages.repair.repair_file import RepairFile, RepairState
from .board_plans import board_target, decides, require_unrouted, solved, solved_within
from .cached_database import database_of, known_database
from .cached_moments import moments_of
from .code import code
from .heal import healer, require_images
from .heldout_metrics import measure_of, points_lost
from .job import Job, open_job
from .keywords import ConvertOptions, Targets, TaskOptions, check_keywords
from .latency import require_runtime, timed, with_measured
from .net_task import Metric, metric_of
from .nets import Model
from .plan_checks import require_goal, require_moments, restated
from .repair import DATABASE, MOMENTS, fits_of, repair, repair_file

if TYPE_CHECKING:
    from typing_extensions import Unpack

SETTLING = 16  # images at a time whose kernels a routing looks at, one by one
TUNES = "the recipe fine-tunes as well, which `kdna run` does and `kdna convert` leaves out"


def convert(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    target_macs: float | str | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[ConvertOptions],
) -> Conversion:
    """Convert a copy of a model: calibrate, plan, fit and repair. `save` writes the result as a folder.

    With a recipe's `codec`, `target_bytes` is the size of the coded file; a recipe that also shares takes the size of
    that from `target_params`.

    Args:
        model: a model name, or a module, which is copied.
        recipe: a recipe, its name, or its file. Its budget holds where no target is given.
        data: unlabeled images: a path, a tensor of inputs, or batches. Without images the fit is on synthetic noise.
        target_params: share of the original's parameters: 0.5, "50%" or "1/2".
        target_bytes: size of the whole file ("1.2MB"), or a share of the original's ("1/20").
        target_macs: share of the original's multiply-adds, with converted layers run factored.
        progress: True for a bar on stderr, or a function of (what, done, total).
        plan: a plan, or its file; no plan is made then, and no target can be given.
        max_drop: in place of a target: find the fewest parameters that lose at most so many points of top-1 on the
            held-out images, or of agreement where these have no labels. Every budget tried is converted and repaired.
        database: a file of predicted errors, read where it exists, else written; or a folder of such files.
        moments: a file of moments, read where it exists, else written; or a folder of such files.
        data_free: use the images only to measure.
        checkpoint: the model's weights file.
        checkpoint_key: the key of the weights in that file. By default the usual ones are tried, moving averages first.
        checkpoint_prefix: what the names of the net's weights begin with in that file, as `model.`.
        inputs: fields of DataConfig that override the model's own.
        class_map: a file of class names, one per line, in the order of the net's outputs.
        target_latency: in place of the targets above: "12ms" for one image, or a share of the original's time, with
            converted layers run factored. `runtime` (onnxruntime, openvino or torch) and `threads` say by what;
            `profile` is the file of times, where they are read and else written; `other_machine` allows one that was
            measured elsewhere.
        board: the profile of a device, its name (`kdna ls boards`) or its file. The plan keeps within its flash and
            memory, with estimates from the profile; without a target, in place of the recipe's budget. `arithmetic` is
            int8 or fp32.
        max_flash: bytes, or "1MB": the parameters at the arithmetic's bytes, and the runtime's code.
        max_peak_memory: bytes, or "320kB": the activations that are alive at once.
        max_latency: "12ms" for one image on the board, or a share of the original's time.
        device: auto, cpu, cuda, cuda:1 or mps.
        work: a folder for the state of an unfinished conversion; the same call with it resumes.
        task: what the outputs mean, a key of TASKS. Default: the recipe's, or chosen from what the net returns.
        outputs: a function, or `file.py:function`, that picks the tensors to compare from what the net returns.
        metric: a function (net, batches) -> number, or `file.py:function`, that `max_drop` counts; higher is better.

    Returns:
        The converted net, its plan, and the report of how it came about.

    Raises:
        PlanError: KD501 a budget that cannot be met, KD504 no budget, KD505 a file that was made for something else,
            KD506 a budget that is none, or two.
        KdnaError: what the stages raise; see `kdna explain`.
    """
    check_keywords("convert", options, ConvertOptions)
    progress, began = as_progress(progress), time.perf_counter()
    require_net(model)
    plan, max_drop, metric = options.get("plan"), options.get("max_drop"), metric_of(options)
    targets = Targets(target_params, target_bytes, target_macs, options.get("target_latency"))
    targets.check()
    _require_one_goal(targets, plan, max_drop)
    require_runtime(options)
    on_board = board_target(options)
    _require_no_plan(on_board, plan)
    job = open_job(model, recipe, data, options, progress)
    require_images(job)
    codec, size = job.recipe.codec, size_of(job.recipe, target_bytes)
    if job.recipe.at_size(size, original_bytes(job.loaded.model, job.loaded.dtypes)).finetune is not None:
        job.notes.append(TUNES)
    if codec is not None:
        targets = targets._replace(bytes=None)
    require_unrouted(job.recipe, on_board)
    if plan is None and not decides(on_board):
        require_goal(job, *targets, max_drop)
    work, options = _work_files(job, options)
    database = None if plan is not None else known_database(job, model, data, options)  # checked before the calibration
    moments = moments_of(job, options.get("moments"), progress)
    call = _ConvertCall(job, moments, work, began, progress, metric, on_board)
    if plan is not None:
        conversion = _converted(call, restated(plan, job))
    else:
        database = database or database_of(job, model, data, options, progress, moments)
        database = timed(database, job.loaded.model, job.loaded.data, options, progress)
        conversion = _planned(call, database, targets, max_drop)
    conversion = with_measured(conversion, options)
    if isinstance(model, nn.Module):
        conversion = replace(conversion, origin=Origin(module=job.loaded.model))
    if codec is None:
        return conversion
    files, place = options.get("class_map"), options.get("device") or "auto"
    how: dict[str, Any] = {"data": data, "class_map": files, "seed": job.recipe.seed, "device": place}
    how |= {name: options.get(name) for name in TaskOptions.__annotations__}
    return code(conversion, codec=codec, target_bytes=size, progress=progress, **how)


@dataclass(frozen=True)
class _ConvertCall:
    """What every conversion of a call is made from; `work` is the folder for an unfinished one, `began` a clock."""

    job: Job
    moments: Moments
    work: Path | None
    began: float
    progress: Progress | None
    metric: Metric | None
    on_board: BoardTarget | None = None


@dataclass(frozen=True)
class FittedNet:
    """A fitted net before its repair: its plan, how the families were fitted, and the seconds of each stage so far.

    `file` is what the repair resumes from, `state` that of a stopped one.
    """

    plan: Plan
    net: nn.Module
    families: tuple[FamilyFit, ...]
    seconds: Mapping[str, float]
    file: RepairFile | None = None
    state: RepairState | None = None


def require_net(model: Model) -> None:
    """Raises ModelError KD302 for a folder, which is what a conversion makes and not what it takes."""
    if isinstance(model, str | Path) and Path(model).is_dir():
        way_out = f"name the net that it was made from, or local-dir:{model} for timm's own kind of folder"
        raise ModelError("KD302", f"{model} is a folder, and a converted net is not converted again; {way_out}")


def size_of(recipe: Recipe, target_bytes: float | str | None) -> float | str | None:
    """The size of the file that was given, else the recipe's."""
    return target_bytes if recipe.budget is None or target_bytes is not None else recipe.budget.bytes


def _require_one_goal(targets: Targets, plan: object, max_drop: float | None) -> None:
    given = [target for target in targets if target is not None]
    if plan is not None and (given or max_drop is not None):
        raise PlanError("KD506", "a plan says how large everything is; give a plan or a budget, not both")
    if max_drop is not None and given:
        raise PlanError("KD506", "max_drop finds the size by itself; give it or a budget, not both")


def _require_no_plan(on_board: BoardTarget | None, plan: object) -> None:
    if on_board is not None and plan is not None:
        raise PlanError("KD506", "a plan says how large everything is; give a plan or the limits of a board, not both")


def _work_files(job: Job, options: ConvertOptions) -> tuple[Path | None, ConvertOptions]:
    """The work folder, and the options with its files for what a repair takes long to compute again."""
    given = options.get("work")
    work = None if given is None else Path(given)
    if work is None or not job.recipe.repair:
        return work, options
    work.mkdir(parents=True, exist_ok=True)
    moments, database = options.get("moments") or work / MOMENTS, options.get("database") or work / DATABASE
    return work, {**options, "moments": moments, "database": database}


def _planned(call: _ConvertCall, database: Database, targets: Targets, max_drop: float | None) -> Conversion:
    """The conversion by a plan of these targets, or of the recipe's budget, with what was expected at other sizes."""
    if max_drop is None:
        conversion = _converted(call, solved(call.job, database, targets, call.on_board))
    else:
        conversion = _smallest(call, database, max_drop)
    if conversion.plan.families:
        with suppress(PlanError):  # no share can be reached
            return replace(conversion, report=replace(conversion.report, curve=trade_off(database)))
    return conversion


def _smallest(call: _ConvertCall, database: Database, max_drop: float) -> Conversion:
    """The conversion to the fewest parameters that loses no more than `max_drop` points."""
    lost, by = points_lost(call.job, call.metric)

    def attempt(share: float) -> tuple[Conversion, float]:
        budget = PlanBudget("params", int(share * database.params))
        planned = solved_within(call.job, database, budget, call.on_board)
        own = replace(call.job, notes=[*call.job.notes])
        attempted = _converted(replace(call, job=own), planned)
        return attempted, lost(attempted.model)

    smallest_plan = smallest(attempt, max_drop)
    result = smallest_plan.result
    return replace(result, report=replace(result.report, max_drop=MaxDropReport(max_drop, by, smallest_plan.trials)))


def _converted(call: _ConvertCall, plan: Plan) -> Conversion:
    """The conversion by a plan: fitted, repaired, measured after every stage."""
    job = call.job
    require_moments(plan, call.moments)
    planned = time.perf_counter()
    if plan.unrouted:
        job.notes.append(routes_note(plan.unrouted))
    measure = measure_of(job)
    file = repair_file(job, plan, call.work)
    converted, fits, state = _fitted(call, plan, measure, file)
    fitted = time.perf_counter()
    seconds = {"calibrate and plan": planned - call.began, "fit": fitted - planned}
    fit = FittedNet(plan, converted, fits, seconds, file, state)
    return completed(job, fit, call.moments, measure, call.progress)


def completed(
    job: Job, fit: FittedNet, moments: Moments, measure: Measure | None, progress: Progress | None
) -> Conversion:
    """The conversion of a fitted net: repaired, and measured after every stage."""
    plan, converted = fit.plan, fit.net
    first = None if measure is None or fit.state is not None else measure(converted)
    results = repair(job, converted, fit.families, measure, first, fit.file, fit.state, progress)
    stages = _stages(first, results)
    if job.recipe.nested:
        plan, unordered = nest(converted, plan, job.loaded.model, moments)
        job.notes.extend(unordered)
    seconds = dict(fit.seconds)
    if results:
        seconds["repair"] = sum(one.seconds for one in results)
    skipped = () if job.calibration is None else tuple(job.calibration.skipped)
    report = Report(
        stages=stages,
        divergence=list(stages.values())[-1] if stages else None,
        families=fit.families,
        repair=results,
        calibration=CalibrationReport(len(job.calibration or ()), skipped),
        seconds={name: round(value, 2) for name, value in seconds.items()},
        notes=tuple(job.notes),
    )
    return Conversion(converted, plan, job.loaded.data, job.recipe.text, report)


def _stages(first: Divergence | None, results: Sequence[StepResult]) -> dict[str, Divergence]:
    """The divergence after the fit and after each repair step that was kept."""
    stages = {} if first is None else {"convert": first}
    for one in results:
        stages.setdefault("convert", one.before)
        if one.kept and one.after is not None:
            stages[one.step] = one.after
    return stages


def _fitted(
    call: _ConvertCall, plan: Plan, measure: Measure | None, file: RepairFile | None
) -> tuple[nn.Module, tuple[FamilyFit, ...], RepairState | None]:
    """The converted net: fitted; or as a stopped run left it, and then the state of its repair."""
    job = call.job
    if file is not None and file.path.exists():
        converted = derive_empty(copy.deepcopy(job.loaded.model), plan)
        state = file.read(converted)
        if state is not None:
            return converted.eval(), fits_of(state), state
    heal = healer(job, call.progress)
    converted, fits = convert_by_plan(
        job.loaded.model,
        plan,
        call.moments,
        sweeps=job.recipe.fit.sweeps,
        measure=measure,
        heal=heal,
        progress=call.progress,
    )
    if job.calibration is not None:
        size = min(SETTLING, job.recipe.calibration.batch)
        calibrate_routers(converted, (inputs for inputs, _ in batches(job.calibration, size)), plan.seed)
    return converted, fits, None
