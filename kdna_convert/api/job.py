"""The first stage of every verb: load and survey the model, assign its layers by the recipe, open the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..core.errors import ModelError
from ..core.progress import LOADING
from ..core.specs import Layer, ModelRef, Progress
from ..inputs.data import Images, as_images, input_shape
from ..inputs.models import Loaded, example_input, factory_note, state_digest
from ..inputs.recipe import Assignment, Recipe, check_options, load_recipe, parse_recipe, resolve
from ..network.derive import fold
from ..network.totals import macs, original_bytes
from ..routing import ROUTINGS
from ..schemes import SCHEMES
from ..stages.analyze.survey import survey, takes_batches
from ..stages.plan.database import SurveyedNet
from ..stages.repair import STEPS
from ..tasks import CLASSIFY, Task
from .keywords import JobOptions
from .net_task import task_of, task_to_draw
from .nets import Model, checkpoint_of, conversion_of, device_of_name, load_any, misfit, sized
from .splits import split_images

DATA_FREE_NOTE = (
    "no calibration images: fitted on synthetic noise, with about 30 % more output error than on 1,000 real images; "
    "pass --data without --data-free"
)

ONE_BY_ONE = "the net takes one image at a time (KD119): it is calibrated and measured with batches of one image"

# In the note of a net whose numbers are others.
IN_FLOAT32 = "the conversion is in float32"


@dataclass
class Job:
    """A loaded model, its surveyed layers with the recipe's assignments, and the images.

    `layers` have the recipe's reasons. `training` are all images except the held-out ones. `notes` collects notes for
    the report. `task` is what the outputs mean; without images to measure on, `raw` where it cannot be chosen.
    """

    loaded: Loaded
    recipe: Recipe
    layers: tuple[Layer, ...]
    assignments: tuple[Assignment, ...]
    calibration: Images | None
    heldout: Images | None
    training: Images | None
    device: torch.device
    notes: list[str]
    task: Task = CLASSIFY


def open_job(model: Model, recipe: Recipe | str, data: Any, options: JobOptions, progress: Progress | None) -> Job:
    """Load and survey MODEL, assign its layers by the recipe and open DATA. Raises what these raise."""
    recipe = checked_recipe(recipe)
    if progress is not None:
        progress(LOADING, 0, 0)
    data = data if data is None or isinstance(data, str | Path) else as_images(data)
    loaded = sized(_loaded(model, options), data, options)
    layers = _surveyed(loaded, data)
    notes: list[str] = []
    task, recipe = _task(loaded, recipe, options, notes, measured=data is not None)
    if not takes_batches(loaded.model, example_input(loaded.data, 2)):
        recipe = _one_by_one(recipe)
        notes.append(ONE_BY_ONE)
    assignments = resolve(recipe, layers)
    reasons = {assignment.layer: assignment.reason for assignment in assignments}
    layers = tuple(replace(layer, reason=reasons[layer.name]) for layer in layers)
    calibration, heldout, training = _images(data, loaded, recipe, options)
    if calibration is None and recipe.fits:
        notes.insert(0, DATA_FREE_NOTE)
    if loaded.taken is not None:
        notes.append(loaded.taken)
    if loaded.dtypes:
        notes.append(precision_note(loaded))
    if isinstance(model, str) and (note := factory_note(model, checkpoint_of(options))) is not None:
        notes.append(note)
    device = device_of_name(options.get("device") or "auto")
    return Job(loaded, recipe, layers, assignments, calibration, heldout, training, device, notes, task)


def _task(
    loaded: Loaded, recipe: Recipe, options: JobOptions, notes: list[str], *, measured: bool
) -> tuple[Task, Recipe]:
    """The task, and the recipe that names it if the options do. Another task than classify is noted."""
    choose_task = task_of if measured else task_to_draw
    chosen = choose_task(loaded.model, loaded.data, options, recipe.task)
    if chosen.why is not None and chosen.task.name != CLASSIFY.name:
        notes.append(chosen.note)
    named = options.get("task")
    if named is not None and named != recipe.task:
        recipe = parse_recipe(recipe.text, [f"task={named}"])
    return chosen.task, recipe


def precision_note(loaded: Loaded) -> str:
    """What becomes of a net whose numbers are not float32."""
    kinds = sorted({str(dtype).removeprefix("torch.") for dtype in loaded.dtypes.values()})
    codec = next((kind for kind in ("bf16", "fp16") if {"bf16": "bfloat16", "fp16": "float16"}[kind] in kinds), None)
    way_out = "" if codec is None else f"; codec {codec} (--codec {codec}) stores two bytes per number"
    return f"{len(loaded.dtypes)} tensors of the net are {' and '.join(kinds)}: {IN_FLOAT32}{way_out}"


def surveyed_net(job: Job, layers: tuple[Layer, ...]) -> SurveyedNet:
    """The job's net with these layers and its size."""
    loaded = job.loaded
    size = original_bytes(loaded.model, loaded.dtypes) if loaded.dtypes else None
    return SurveyedNet(loaded.model, loaded.ref, layers, macs(loaded.model, example_input(loaded.data)), size)


def _surveyed(loaded: Loaded, data: Any) -> tuple[Layer, ...]:
    """The layers. Raises DataError KD406 where it is the tensors in DATA that the net cannot take."""
    shape = input_shape(data) if isinstance(data, Images) else None
    try:
        return survey(loaded.model, example_input(loaded.data))
    except ModelError as error:
        if shape is None or error.code != "KD307":
            raise
        raise misfit(loaded.model, shape, error.message) from error


def checked_recipe(recipe: Recipe | str) -> Recipe:
    """The recipe with this name or file. Its options are checked against the plug-in tables. Raises RecipeError."""
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_options(recipe, SCHEMES, ROUTINGS, STEPS)
    return recipe


def _one_by_one(recipe: Recipe) -> Recipe:
    """The recipe with batches of one image."""
    return recipe.model_copy(update={"calibration": recipe.calibration.model_copy(update={"batch": 1})})


def _loaded(model: Model, options: JobOptions) -> Loaded:
    conversion = conversion_of(model, options.get("trust_code", False))
    if conversion is None:
        return load_any(model, checkpoint_of(options), options.get("inputs"))
    folded = fold(conversion.model)
    return Loaded(folded, ModelRef(str(model), None, state_digest(folded)), conversion.data)


def _images(
    data: Any, loaded: Loaded, recipe: Recipe, options: JobOptions
) -> tuple[Images | None, Images | None, Images | None]:
    """Calibration images, held-out images, and all except the held-out ones. With data_free only the second."""
    if data is None:
        return None, None, None
    images = split_images(data, loaded.data, options.get("class_map"), recipe.calibration, recipe.seed)
    heldout = images.heldout if len(images.heldout) else None
    if options.get("data_free"):
        return None, heldout, None
    return images.calibration, heldout, images.whole.without(images.heldout)
