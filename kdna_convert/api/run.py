"""The verb `run`: a recipe's whole job - convert and repair, fine-tune, code, evaluate - in one call.

Every stage that is done lies as a folder in the work folder, beside what the one under way is gone on from, until the
last is done: a run that was killed, called again, goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.atomic import write_text
from ..core.errors import DataError, KdnaError, ModelError
from ..core.progress import as_progress
from ..core.specs import Progress
from ..inputs.data import Data, batches, check_classes
from ..inputs.recipe import Recipe
from ..network.folder import Conversion, is_ours, open_folder, original_of, require_free, save
from ..network.folder.report import RunReport, StageSummary
from ..network.folder.work import clear, work_folder, work_place
from ..network.totals import original_bytes
from ..stages.evaluate.accuracy import evaluate
from ..stages.finetune.state import FILE
from ..stages.plan.files import request_mark
from .code import CODED, code, require_size
from .convert import convert, require_net, size_of, without_bytes
from .finetune import finetune
from .images import digest_of, images_of
from .job import checked_recipe
from .nets import device_of_name, load_any, outputs_of
from .repair import WORK_FILES

MARK = "run.json"
FILES = (MARK, *WORK_FILES, FILE)
# The folders that stages leave in the work folder.
FOLDERS = {"convert": "converted", "finetune": "tuned", "code": "coded"}
BATCH = 100


@dataclass(frozen=True)
class _Asked:
    """What a run is asked for; `mark` is one string for all of it that the result depends on."""

    model: str
    recipe: Recipe  # as it comes to at this size
    data: Any
    params: float | None
    size: int | str | None
    given: Mapping[str, Any]  # checkpoint, inputs, class_map, device
    decided: bool | None  # whether the recipe's own `sharing` was taken; None where it has none
    mark: str
    progress: Progress | None


def run(
    model: str | Path,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    output: str | Path,
    target_params: float | None = None,
    target_bytes: int | str | None = None,
    eval_data: Data | str | Path | None = None,
    force: bool = False,
    command: str | None = None,
    progress: Progress | bool | None = None,
    **given: Any,
) -> Conversion:
    """Do all that a recipe says, in order, write the folder `output` and return what is in it.

    Convert and repair; train as its `finetune` says; store by its `codec` in `target_bytes` (of the whole file; without
    a codec, sharing meets it); measure on `eval_data`. With `sharing`, the recipe decides by that size whether to share
    and train at all. Finished stages are kept in `output`.part and not done again by the same call; for another recipe,
    model, data or size it begins anew. An `output` that the same call wrote is only read, which the report's
    `run.was_there` says; its `run.stages` has a StageSummary a stage.

    `given`: checkpoint, inputs, class_map, device, as in `convert`; `command` goes on the model card. Raises what the
    stages raise, what can be known at once before any work; FolderError KD601 when `output` is something else.
    """
    progress = as_progress(progress)
    asked = _asked(model, recipe, data, target_params, target_bytes, given, progress)
    target = Path(output)
    if not force and (done := _done(target, asked)) is not None:
        return done
    require_free(target, force)
    measure = None if eval_data is None else _measure(asked, eval_data)
    with work_folder(target, FILES, _mark_in(work_place(target)) == asked.mark, list(FOLDERS.values())) as work:
        try:
            found, places = _all_stages(asked, work)
            if measure is not None:
                found = _with_run(found, measure(found, places))
            if command is not None:
                found = replace(found, report=replace(found.report, command=command))
            save(found, target, force=force)
        finally:
            if [path.name for path in work.glob("*")] == [MARK]:  # nothing to go on from
                clear(work, [MARK])
    return found


def _asked(
    model: Any,
    recipe: Recipe | str,
    data: Any,
    params: float | None,
    target_bytes: int | str | None,
    given: dict[str, Any],
    progress: Progress | None,
) -> _Asked:
    """What is wanted, checked as far as it can be before the work."""
    if unknown := set(given) - {"checkpoint", "inputs", "class_map", "device"}:
        raise TypeError(f"unexpected keywords: {', '.join(sorted(unknown))}")
    if not isinstance(model, str | Path):
        raise ModelError(
            "KD302", "a run keeps its stages as folders, which name their net; name it, as file.py:factory"
        )
    require_net(model)
    recipe = checked_recipe(recipe)
    loaded = load_any(model, given.get("checkpoint"), given.get("inputs"))
    size = size_of(recipe, target_bytes)
    whole = original_bytes(loaded.model)
    final = recipe.at_size(size, whole)
    if final.codec is not None:
        require_size(final.codec, size, whole)
    if final.finetune is not None and data is None:
        raise DataError("KD401", "the recipe fine-tunes, which takes images; pass --data")
    images = None if data is None else images_of(data, loaded.data, given.get("class_map"), None, recipe.seed)
    if images is not None and final.finetune is not None and final.finetune.label_weight:
        check_classes(images, outputs_of(loaded.model, loaded.data))
    said = [recipe.model_dump(mode="json"), loaded.ref.sha256, digest_of(images, 2), params, size]
    named = data if isinstance(data, str | Path) else None
    said += [request_mark(recipe, model, named, given), str(given.get("class_map"))]
    mark = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    decided = None if recipe.sharing is None else final.scheme != recipe.scheme
    return _Asked(str(model), final, data, params, size, given, decided, mark, progress)


def _done(target: Path, asked: _Asked) -> Conversion | None:
    """What the same call has written already, every row of it done before; None where it has not."""
    if not is_ours(target):
        return None
    try:
        found = open_folder(target)
    except KdnaError:
        return None
    if found.report.run is None or found.report.run.mark != asked.mark:
        return None
    if _mark_in(work_place(target)) == asked.mark:  # killed after the last stage, before this was removed
        clear(work_place(target), FILES, list(FOLDERS.values()))
    return _with_run(found, replace(_as_done(found.report.run), was_there=True))


def _with_run(found: Conversion, run: RunReport) -> Conversion:
    return replace(found, report=replace(found.report, run=run))


def _as_done(run: RunReport) -> RunReport:
    return replace(run, stages=tuple(replace(row, done_before=True) for row in run.stages))


def _mark_in(work: Path) -> str | None:
    """Whose work it is that lies in a folder; None where that does not say."""
    try:
        mark = json.loads((work / MARK).read_bytes())["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if isinstance(mark, str) else None


def _all_stages(asked: _Asked, work: Path) -> tuple[Conversion, dict[str, Path]]:
    """The last stage's conversion, and where each lies. Stages up to the last that is there are not done again."""
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / MARK, json.dumps({"mark": asked.mark}))
    stages = _stages(asked, work)
    places = {name: work / FOLDERS[name] for name in stages}
    found: Any = None
    done = RunReport(asked.mark, asked.decided)
    for name in _left(places):
        if places[name].exists():
            found = open_folder(places[name])
            done = _as_done(found.report.run or done)
        else:
            began = time.perf_counter()
            found = stages[name](found)
            done = replace(done, stages=(*done.stages, _row(name, found, time.perf_counter() - began)))
            save(_with_run(found, done), places[name])
        found = _with_run(found, done)
    return found, places


def _left(places: Mapping[str, Path]) -> list[str]:
    """The stages from the last one on that is done; all of them where none is."""
    names = list(places)
    done = [number for number, name in enumerate(names) if places[name].exists()]
    return names[done[-1] :] if done else names


def _stages(asked: _Asked, work: Path) -> dict[str, Callable[[Any], Conversion]]:
    """What there is to do, in order; each takes the conversion before it."""
    recipe, given, progress = asked.recipe, asked.given, asked.progress
    seen = {"data": asked.data, "class_map": given.get("class_map"), "device": given.get("device") or "auto"}

    def converted(_: None) -> Conversion:
        alone = without_bytes(recipe).model_copy(update={"codec": None, "finetune": None})
        size = None if recipe.codec else asked.size
        goals: dict[str, Any] = {"target_params": asked.params, "target_bytes": size}
        return convert(asked.model, recipe=alone, data=asked.data, work=work, progress=progress, **goals, **given)

    def tuned(before: Conversion) -> Conversion:
        settings = {} if recipe.finetune is None else recipe.finetune.settings(recipe.seed)
        return finetune(before, **seen, **settings, work=work, resume=True, progress=progress)

    def coded(before: Conversion) -> Conversion:
        how: dict[str, Any] = {"codec": recipe.codec, "target_bytes": asked.size, "seed": recipe.seed}
        return code(before, **seen, **how, progress=progress)

    stages: dict[str, Callable[[Any], Conversion]] = {"convert": converted}
    tuning = {"finetune": tuned} if recipe.finetune else {}
    coding = {"code": coded} if recipe.codec else {}
    if recipe.finetune and recipe.finetune.train in CODED:  # which is of what coding has made, or left to train
        return stages | coding | tuning
    return stages | tuning | coding


def _row(name: str, found: Conversion, seconds: float) -> StageSummary:
    size = found.plan.planned
    seen, spent = found.report.divergence, round(seconds, 2)
    if seen is None:
        return StageSummary(name, size.params, size.bytes, seconds=spent)
    return StageSummary(name, size.params, size.bytes, seen.agreement, seen.kl, seen.images, seconds=spent)


def _measure(asked: _Asked, eval_data: Any) -> Callable[[Conversion, Mapping[str, Path]], RunReport]:
    """Top-1 of the original and of every stage on `eval_data`, opened now: that it cannot be is better known early."""
    given = asked.given
    loaded = load_any(asked.model, given.get("checkpoint"), given.get("inputs"))
    images = images_of(eval_data, loaded.data, given.get("class_map"), None, 0)
    if images.labelled:
        check_classes(images, outputs_of(loaded.model, loaded.data))
    device = device_of_name(given.get("device") or "auto")

    def measure(found: Conversion, places: Mapping[str, Path]) -> RunReport:
        original = original_of(found.plan.model).model
        first = evaluate(original, batches(images, BATCH), device=device, progress=asked.progress)
        seen = {
            name: evaluate(
                open_folder(place).model,
                batches(images, BATCH),
                original=original,
                device=device,
                progress=asked.progress,
            )
            for name, place in places.items()
        }
        run = found.report.run or RunReport(asked.mark)
        rows = tuple(replace(row, top1=seen[row.stage].top1 if row.stage in seen else None) for row in run.stages)
        last = replace(seen[list(seen)[-1]], bytes=found.plan.planned.bytes)
        named = str(eval_data) if isinstance(eval_data, str | Path) else None
        return replace(run, stages=rows, eval_data=named, original=first, evaluation=last)

    return measure
