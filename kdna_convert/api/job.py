"""What every stage begins with: the model loaded and surveyed, met by its recipe, and the images to calibrate on."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import DataError, ModelError
from ..core.processes import first_goes_on, gathered
from ..core.specs import DataConfig, Layer, ModelRef, Progress
from ..inputs.data import Images, Inputs, Reading, as_images, open_images, split
from ..inputs.models import Loaded, example_input, load_model, override, state_digest
from ..inputs.recipe import Assignment, Recipe, check_options, load_recipe, resolve
from ..network.derive import fold
from ..network.folder import Conversion, open_folder
from ..routing import ROUTINGS
from ..schemes import SCHEMES
from ..stages.analyze.collect import Sampling, collect
from ..stages.analyze.data_free import data_free as moments_without_data
from ..stages.analyze.moments import Moments
from ..stages.analyze.moments_file import load_moments, save_moments
from ..stages.analyze.survey import survey
from ..stages.evaluate.accuracy import answers
from ..stages.plan.files import fingerprint
from ..stages.repair import STEPS

Model = str | Path | nn.Module
DATA_FREE_NOTE = (
    "no images: fitted on synthetic noise, which costs about 30 % more output error than 1,000 real images; pass --data"
)


@dataclass
class Job:
    """A loaded model, surveyed and met by a recipe, and the images it is calibrated on."""

    loaded: Loaded
    recipe: Recipe
    layers: tuple[Layer, ...]  # with the recipe's reasons
    assignments: tuple[Assignment, ...]
    calibration: Images | None
    heldout: Images | None
    training: Images | None  # all but those held back
    device: torch.device
    notes: list[str]


def open_job(model: Model, recipe: Recipe | str, data: Any, given: Mapping[str, Any], progress: Progress | None) -> Job:
    unknown = set(given) - {"checkpoint", "inputs", "class_map", "data_free", "moments", "device"}
    if unknown:
        raise TypeError(f"unexpected keywords: {', '.join(sorted(unknown))}")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_options(recipe, SCHEMES, ROUTINGS, STEPS)
    if progress is not None:
        progress("load the model", 0, 0)
    conversion = conversion_of(model)
    if conversion is not None:
        folded = fold(conversion.model)
        ref = ModelRef(str(model), None, state_digest(folded))
        loaded = Loaded(folded, ref, conversion.data)
    else:
        loaded = load_any(model, given.get("checkpoint"), given.get("inputs"))
    layers = survey(loaded.model, example_input(loaded.data))
    assignments = resolve(recipe, layers)
    reasons = {assignment.layer: assignment.reason for assignment in assignments}
    layers = tuple(replace(layer, reason=reasons[layer.name]) for layer in layers)
    calibration, heldout, training = _parts(data, loaded.data, recipe, given)
    notes = [] if calibration is not None else [DATA_FREE_NOTE]
    device = device_of_name(given.get("device") or "auto")
    return Job(loaded, recipe, layers, assignments, calibration, heldout, training, device, notes)


def _parts(
    data: Any, config: DataConfig, recipe: Recipe, given: Mapping[str, Any]
) -> tuple[Images | None, Images | None, Images | None]:
    """Disjoint calibration and held-back images, and all but the second; data-free, only the second are used."""
    if data is None:
        return None, None, None
    images = images_of(data, config, given.get("class_map"), None, recipe.seed)
    calibration, heldout = calibration_split(images, recipe.calibration.images, recipe.calibration.heldout, recipe.seed)
    held = heldout if len(heldout) else None
    return (None, held, None) if given.get("data_free") else (calibration, held, images.without(heldout))


def calibration_split(images: Images, wanted: int, kept: int, seed: int) -> tuple[Images, Images]:
    """Images to calibrate on and images to hold back; of too few, at most a third is held back."""
    if len(images) < wanted + kept:
        kept = min(kept, len(images) // 3)
        wanted = min(wanted, len(images) - kept)
    calibration, heldout = split(images, [wanted, kept], seed)
    return calibration, heldout


def moments_of(job: Job, given: Mapping[str, Any], progress: Progress | None) -> Moments:
    """Read from the file where it exists and fits, else collected, and written to it.

    Of processes that share the work all collect, and the first alone comes back: the rest of a stage is one process's.
    """
    active = [layer for layer in job.layers if layer.reason is None]
    if not active:  # all stays dense
        first_goes_on()
        return {}
    settings = job.recipe.calibration
    path = given.get("moments")
    mark = fingerprint(
        Recipe(scheme="cp", calibration=settings, seed=job.recipe.seed),
        model=job.loaded.ref.sha256,
        inputs=job.loaded.data,
        images=digest_of(job.calibration, settings.batch) if path is not None else None,
        layers=[layer.name for layer in active],
    )
    known = path is not None and Path(path).exists()
    if gathered(known)[0]:
        first_goes_on()
    if path is not None and known:
        return load_moments(path, mark)
    if job.calibration is None:
        moments = moments_without_data(
            job.loaded.model,
            active,
            job.loaded.data.input_size,
            memory=settings.memory,
            seed=job.recipe.seed,
            device=job.device,
            progress=progress,
        )
    else:
        inputs = Inputs(Reading(job.calibration, settings.batch))
        moments = collect(
            job.loaded.model,
            active,
            inputs,
            memory=settings.memory,
            sampling=Sampling(seed=job.recipe.seed),
            device=job.device,
            progress=progress,
        )
        job.calibration.gather_skipped()
        _note_few(job, active, moments)
    first_goes_on()
    if path is not None:
        save_moments(path, moments, mark)
    return moments


def digest_of(images: Images | None, batch: int) -> str:
    """Which images these are: their places in the data, and the inputs of the first batch."""
    if images is None:
        return "none"
    first = next(iter(Inputs(Reading(images, batch))))
    return hashlib.sha256(repr(images.positions).encode() + first.contiguous().numpy().tobytes()).hexdigest()


def _note_few(job: Job, layers: Sequence[Layer], moments: Moments) -> None:
    short = [layer for layer in layers if layer.name in moments and moments[layer.name].count < 2 * layer.patch]
    if short and job.calibration is not None:
        need = max(-(-2 * layer.patch * len(job.calibration) // moments[layer.name].count) for layer in short)
        job.notes.append(
            f"{len(job.calibration)} calibration images are few for {len(short)} wide layers (the widest wants {need});"
            " their moments are drawn towards a simpler form"
        )


def load_any(model: Model, checkpoint: str | None, inputs: Mapping[str, Any] | None) -> Loaded:
    if isinstance(model, nn.Module):
        name = f"{type(model).__module__}:{type(model).__qualname__}"
        own = copy.deepcopy(model).to("cpu", torch.float32).eval()  # as load_model gives it; the caller's stays
        loaded = Loaded(own, ModelRef(name, None, state_digest(own)), _own_config(own))
    else:
        loaded = load_model(str(model), checkpoint=checkpoint)
    return replace(loaded, data=override(loaded.data, **inputs)) if inputs else loaded


def _own_config(model: nn.Module) -> DataConfig:
    carried = getattr(model, "pretrained_cfg", None) or {}
    known = {key: carried[key] for key in asdict(DataConfig()) if carried.get(key)}
    return DataConfig(**known)


def conversion_of(model: Any) -> Conversion | None:
    if isinstance(model, Conversion):
        return model
    if isinstance(model, str | Path) and Path(model).is_dir():
        return open_folder(model)
    return None


def images_of(data: Any, config: DataConfig, class_map: Any, limit: int | None, seed: int) -> Images:
    if isinstance(data, str | Path):
        return open_images(data, config, class_map=class_map, limit=limit, seed=seed)
    images = as_images(data, limit, seed)
    if not len(images):
        raise DataError("KD401", "the data holds no image")
    return images


def outputs_of(net: nn.Module, config: DataConfig) -> int:
    """How many classes it tells apart."""
    with torch.no_grad():
        return int(answers(net(example_input(config)), 1).shape[1])


def device_of_name(name: str) -> torch.device:
    """auto, cpu, cuda, cuda:1 ...: the device, once it is sure that it is there. Raises ModelError KD309."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError("KD309", f"device {name}: {reason}; --device auto takes what there is") from None
