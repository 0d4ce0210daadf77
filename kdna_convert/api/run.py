"""The verb `run`: a whole recipe in one call - convert and repair, fine-tune, code, evaluate.

Until the last stage is done, the work folder holds a folder for every finished stage and the state of the unfinished
one. The same call resumes a run that was killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.atomic import require_writable, write_text
from ..core.errors import FolderError, KdnaError, PlanError
from ..core.measurements import Evaluation
from ..core.plugin_names import ExportChoice
from ..core.progress import as_progress
from ..core.specs import Progress, required
from ..inputs.data import Data, as_images, batches
from ..inputs.recipe import Recipe
from ..network.folder import Conversion, is_ours, open_folder, original_of, read_claim, require_free, save
from ..network.folder.report import RunReport, StageSummary
from ..network.folder.work import clear, work_folder, work_place
from ..stages.evaluate.accuracy import evaluate
from ..stages.finetune.training_state import FILE
from .code import CODED, code
from .convert import convert
from .export import default_place, export
from .finetune import finetune
from .keywords import RunOptions, TaskOptions, check_keywords
from .net_task import metric_of, task_of, with_metric
from .nets import Model, check_labels, checkpoint_of, device_of_name, load_any, opened, sized, task_batches
from .repair import WORK_FILES
from .request import RunRequest, request_of
from .splits import images_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

MARK = "run.json"
FILES = (MARK, *WORK_FILES, FILE)
# The folder of each stage within the work folder.
FOLDERS = {"convert": "converted", "finetune": "tuned", "code": "coded"}
BATCH = 100
# Images that an export is calibrated and measured on.
IMAGES = 200


def run(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    output: str | Path,
    target_params: float | str | None = None,
    target_bytes: float | str | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[RunOptions],
) -> Conversion:
    """Run a whole recipe: convert, repair, fine-tune, code and evaluate, and write the folder `output`.

    Finished stages are kept in `output`.part, so that the same call resumes. For another recipe, model, data or size it
    starts again. An `output` that the same call wrote is only read; the report's `run.was_there` is then True.

    Args:
        model: a model name, or a module, which is copied.
        recipe: a recipe, its name, or its file.
        data: unlabeled images: a path, a tensor of inputs, or batches.
        output: the folder to write.
        target_params: share of the parameters that sharing keeps.
        target_bytes: size of the whole file ("1.2MB"), or a share of the original's ("1/20"). With `sharing`, the
            recipe decides by this size whether to share and fine-tune.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: `eval_data`, images that every stage is measured on; `force`, to overwrite; `command`, for the model
            card; checkpoint, inputs, class_map, device, task, outputs, metric, moments and database, as for `convert`;
            and target_latency, board and the limits of these, which size the plan. A codec meets the bytes besides.

    A recipe's `export` is written beside `output`, whose name it extends.

    Returns:
        The last stage's conversion; its report's `run.stages` has a StageSummary per stage.

    Raises:
        FolderError: KD601 if `output` is something else.
        KdnaError: what the stages raise; what can be checked is checked before any work.
    """
    check_keywords("run", options, RunOptions)
    progress = as_progress(progress)
    eval_data, force, command = options.get("eval_data"), options.get("force", False), options.get("command")
    target = Path(output)
    if not target.exists():
        require_writable(target)
    request = request_of(model, recipe, data, (target_params, target_bytes), options, progress)
    place = None if request.recipe.export is None else default_place(target, request.recipe.export)
    if not force and (done := _done(target, request)) is not None:
        if place is None:
            return done
        made = replace(required(done.report.run), exported=str(place))
        return _with_run(done, made) if place.exists() else _exported(done, request, place)
    require_free(target, force)
    if place is not None:
        _require_no_export(place, force)
    measure = None if eval_data is None else _measure(request, eval_data)
    with work_folder(target, FILES, _mark_in(work_place(target)) == request.mark, list(FOLDERS.values())) as work:
        try:
            conversion, places = _all_stages(request, work)
            if measure is not None:
                conversion = _with_run(conversion, measure(conversion, places))
            if command is not None:
                conversion = replace(conversion, report=replace(conversion.report, command=command))
            save(conversion, target, force=force)
        except PlanError:
            if not any((work / place).exists() for place in FOLDERS.values()):  # the same call fails again
                clear(work, FILES)
            raise
        finally:
            if [path.name for path in work.glob("*")] == [MARK]:  # nothing to resume from
                clear(work, [MARK])
    return conversion if place is None else _exported(conversion, request, place)


def _require_no_export(place: Path, force: bool) -> None:
    """Raise FolderError KD601 before the work if something is where the export will be written."""
    if place.exists() and not force:
        raise FolderError("KD601", f"{place} exists already; choose a new name, or pass --force")


def _exported(conversion: Conversion, request: RunRequest, place: Path) -> Conversion:
    """The conversion, written in the form of the recipe beside its folder. The report names the place."""
    to: ExportChoice | None = request.recipe.export
    export(
        conversion, to=required(to), output=place, data=request.data, seed=request.recipe.seed, limit=IMAGES, force=True
    )
    return _with_run(conversion, replace(required(conversion.report.run), exported=str(place)))


def _done(target: Path, request: RunRequest) -> Conversion | None:
    """The conversion that the same call has written before, or None."""
    if not is_ours(target):
        return None
    try:
        conversion = _opened(target, request)
    except KdnaError:
        return None
    if conversion.report.run is None or conversion.report.run.mark != request.mark:
        return None
    if _mark_in(work_place(target)) == request.mark:  # killed after the last stage, before this was removed
        clear(work_place(target), FILES, list(FOLDERS.values()))
    return _with_run(conversion, replace(_as_done(conversion.report.run), was_there=True))


def _opened(place: Path, request: RunRequest) -> Conversion:
    """A folder of the run. The caller named its net, so that its code may run; a module takes the place of that."""
    if isinstance(request.model, nn.Module):
        return opened(place, {"model": request.model})
    return open_folder(place, trust_code=read_claim(place).model == request.model)


def _with_run(conversion: Conversion, run: RunReport) -> Conversion:
    return replace(conversion, report=replace(conversion.report, run=run))


def _as_done(run: RunReport) -> RunReport:
    return replace(run, stages=tuple(replace(row, done_before=True) for row in run.stages))


def _mark_in(work: Path) -> str | None:
    """The mark of the run that a work folder belongs to; None if there is none."""
    try:
        mark = json.loads((work / MARK).read_bytes())["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, str) else None


def _all_stages(request: RunRequest, work: Path) -> tuple[Conversion, dict[str, Path]]:
    """The last stage's conversion, and the folder of each. A stage whose folder exists is not done again."""
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / MARK, json.dumps({"mark": request.mark}))
    stages = _stages(request, work)
    places = {name: work / FOLDERS[name] for name in stages}
    conversion: Any = None
    done = RunReport(request.mark, request.shares)
    for name in _remaining(places):
        if places[name].exists():
            conversion = _opened(places[name], request)
            done = _as_done(conversion.report.run or done)
        else:
            began = time.perf_counter()
            conversion = stages[name](conversion)
            done = replace(done, stages=(*done.stages, _summary(name, conversion, time.perf_counter() - began)))
            save(_with_run(conversion, done), places[name])
        conversion = _with_run(conversion, done)
    return conversion, places


def _remaining(places: Mapping[str, Path]) -> list[str]:
    """The last stage that is done and those after it; all stages if none is done."""
    names = list(places)
    done = [number for number, name in enumerate(names) if places[name].exists()]
    return names[done[-1] :] if done else names


def _stages(request: RunRequest, work: Path) -> dict[str, Callable[[Any], Conversion]]:
    """The stages in order; each takes the conversion before it."""
    recipe, options, progress = request.recipe, request.options, request.progress
    images: dict[str, Any] = {"data": request.data, "class_map": options.get("class_map")}
    images |= {"device": options.get("device") or "auto"}
    images |= {name: options.get(name) for name in TaskOptions.__annotations__}

    def converted(_: None) -> Conversion:
        alone = _without_codec(recipe)
        size = None if recipe.codec else request.size
        goals: dict[str, Any] = {"target_params": request.params, "target_bytes": size, **request.limits, **options}
        goals |= {"moments": request.moments, "database": request.database}
        return convert(request.model, recipe=alone, data=request.data, work=work, progress=progress, **goals)

    def tuned(before: Conversion) -> Conversion:
        settings = {} if recipe.finetune is None else vars(recipe.finetune.settings(recipe.seed))
        return finetune(before, **images, **settings, work=work, resume=True, progress=progress)

    def coded(before: Conversion) -> Conversion:
        how: dict[str, Any] = {"codec": recipe.codec, "target_bytes": request.size, "seed": recipe.seed}
        return code(before, **images, **how, progress=progress)

    stages: dict[str, Callable[[Any], Conversion]] = {"convert": converted}
    tuning = {"finetune": tuned} if recipe.finetune else {}
    coding = {"code": coded} if recipe.codec else {}
    if recipe.finetune and recipe.finetune.train in CODED:  # it trains a coded net
        return stages | coding | tuning
    return stages | tuning | coding


def _without_codec(recipe: Recipe) -> Recipe:
    """The recipe of the first stage. With a codec, that stage has no budget in bytes: the codec meets it."""
    budget = recipe.budget if recipe.codec is None or recipe.budget is None or recipe.budget.bytes is None else None
    return recipe.model_copy(update={"budget": budget, "codec": None, "finetune": None})


def _summary(name: str, conversion: Conversion, seconds: float) -> StageSummary:
    size = conversion.plan.planned
    divergence, spent = conversion.report.divergence, round(seconds, 2)
    if divergence is None:
        return StageSummary(name, size.params, size.bytes, seconds=spent)
    own = StageSummary(name, size.params, size.bytes, divergence.agreement, divergence.kl, divergence.images)
    return replace(own, seconds=spent, logit_error=divergence.logit_error, from_original=divergence.measures)


def _measure(request: RunRequest, eval_data: Any) -> Callable[[Conversion, Mapping[str, Path]], RunReport]:
    """A function that adds the evaluation of every stage to a run. `eval_data` is opened now, before the work."""
    options = request.options
    eval_data = eval_data if isinstance(eval_data, str | Path) else as_images(eval_data)
    loaded = sized(load_any(request.model, checkpoint_of(options), options.get("inputs")), eval_data, options)
    images = images_of(eval_data, loaded.data, options.get("class_map"), None, 0)
    task, metric = task_of(loaded.model, loaded.data, options, request.recipe.task).task, metric_of(options)
    check_labels(images, loaded.model, loaded.data, task)
    device = device_of_name(options.get("device") or "auto")

    def evaluated(net: nn.Module, original: nn.Module | None = None) -> Evaluation:
        stream = task_batches(images, BATCH, task)
        own = evaluate(net, stream, original=original, task=task, device=device, progress=request.progress)
        return with_metric(own, metric, net, batches(images, BATCH))

    def measure(conversion: Conversion, places: Mapping[str, Path]) -> RunReport:
        original = original_of(conversion).model
        first = evaluated(original)
        evaluations = {name: evaluated(_opened(place, request).model, original) for name, place in places.items()}
        run = conversion.report.run or RunReport(request.mark)
        rows = tuple(_with_evaluation(row, evaluations.get(row.stage)) for row in run.stages)
        last = replace(evaluations[list(evaluations)[-1]], bytes=conversion.plan.planned.bytes)
        named = str(eval_data) if isinstance(eval_data, str | Path) else None
        return replace(run, stages=rows, eval_data=named, original=first, evaluation=last)

    return measure


def _with_evaluation(row: StageSummary, evaluation: Evaluation | None) -> StageSummary:
    return row if evaluation is None else replace(row, top1=evaluation.top1, measures=evaluation.measures)
