"""The moments of a job's layers: read from a file, collected on images, or from noise without images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.fingerprint import Fingerprint, parts_of, place_in
from ..core.linalg import Kronecker
from ..core.processes import end_other_processes, gather
from ..core.specs import Layer, Progress
from ..inputs.data import Inputs, Reading
from ..inputs.recipe import Recipe
from ..stages.analyze.collect import Sampling, collect, images_at_once
from ..stages.analyze.data_free import BATCH, data_free
from ..stages.analyze.moments import MomentForm, Moments, needed
from ..stages.analyze.moments_file import load_moments, save_moments
from ..stages.plan.files import fingerprint
from .job import Job
from .splits import digest_of

FILE = "moments.safetensors"
NAMED = 3  # layers that a note names

NO_GRADIENT = (
    "calibrated without gradients (KD118): the net has no backward pass, or no outputs of its task; the "
    "layers' relative errors count alike"
)

ENLARGED = (
    "{enlarged} of {images} calibration images are smaller than the net's input of {size} pixels and were enlarged; "
    "that makes them smoother than the images the net will see: pass larger ones, or --input-size"
)


def moments_of(job: Job, path: str | Path | None, progress: Progress | None) -> Moments:
    """Read the moments from the file at `path`, or collect them and write it. In a folder, files have names of kdna's.

    All processes collect, and only the first returns: it alone does the rest of the verb.

    Raises:
        PlanError: KD505 for a file of another model, recipe, data or settings.
    """
    active = [layer for layer in job.layers if layer.reason is None]
    if not active:  # everything stays dense
        end_other_processes()
        return {}
    made_from = _made_from(job, active, path)
    path = None if path is None else place_in(path, FILE, made_from.whole)
    exists = path is not None and Path(path).exists()
    if gather(exists)[0]:
        end_other_processes()
    if path is not None and exists:
        return _noted(job, active, load_moments(path, made_from))
    moments = _collected(job, active, progress)
    end_other_processes()
    if path is not None:
        save_moments(path, moments, made_from)
    return _noted(job, active, moments)


def _noted(job: Job, active: Sequence[Layer], moments: Moments) -> Moments:
    if moments and not any(layer.sensitivity for layer in moments.values()):
        job.notes.append(NO_GRADIENT)
    _note_memory(job, active, moments)
    return moments


def _note_memory(job: Job, active: Sequence[Layer], moments: Moments) -> None:
    """Name the layers whose moments did not fit, with the bytes that they need."""
    found = {name: own.packed for name, own in moments.items()}
    factored = [layer for layer in active if isinstance(found.get(layer.name), Kronecker)]
    missing = [layer for layer in active if layer.name not in found]
    enough = _mebibytes(needed(active, dict.fromkeys((layer.name for layer in active), "full")))
    if factored:
        job.notes.append(
            f"{_named(factored, 'full')}: two factors of the second moment are kept instead of the whole, which costs "
            f"accuracy; --moments-memory {enough} is enough for all layers"
        )
    if missing:
        job.notes.append(
            f"{_named(missing, 'kronecker')}: the second moments do not fit (KD108); pass --moments-memory {enough}, "
            "or exclude these layers"
        )


def _named(layers: Sequence[Layer], form: MomentForm) -> str:
    """The widest layers with the bytes that each needs, and how many others there are."""
    widest = sorted(layers, key=lambda layer: -layer.patch)[:NAMED]
    others = f" and {len(layers) - NAMED} more" if layers[NAMED:] else ""
    return ", ".join(f"{layer.name} ({_mebibytes(needed([layer], {layer.name: form}))})" for layer in widest) + others


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}MiB"


def _made_from(job: Job, active: Sequence[Layer], path: str | Path | None) -> Fingerprint:
    """The fingerprint of what the moments depend on. Without a file, the images are not read."""
    settings, seed = job.recipe.calibration, job.recipe.seed
    model, inputs = job.loaded.ref.sha256, job.loaded.data
    images = digest_of(job.calibration, settings.batch) if path is not None else None
    layers = [layer.name for layer in active]
    task: Any = None if job.task.name == "classify" else job.task.name
    recipe = Recipe(scheme="cp", calibration=settings, seed=seed, task=task)
    whole = fingerprint(recipe, model=model, inputs=inputs, images=images, layers=layers)
    chosen = [settings.model_dump(mode="json"), seed, str(inputs), job.calibration is None, job.task.name]
    return Fingerprint(whole, parts_of(model=model, recipe=layers, data=images, settings=chosen))


def _collected(job: Job, active: Sequence[Layer], progress: Progress | None) -> Moments:
    if progress is not None:
        progress("calibrate", 0, 0)
    net, settings, seed = job.loaded.model, job.recipe.calibration, job.recipe.seed
    batch = min(settings.batch, images_at_once(active))
    how: dict[str, Any] = {"memory": settings.memory, "device": job.device, "progress": progress, "notes": job.notes}
    how["task"] = job.task
    if job.calibration is None:
        size = job.loaded.data.input_size
        return data_free(net, active, size, images=settings.images, batch=min(batch, BATCH), seed=seed, **how)
    inputs, before = Inputs(Reading(job.calibration, batch)), job.calibration.enlarged
    sampling = Sampling(images=len(job.calibration), seed=seed)
    moments = collect(net, active, inputs, sampling=sampling, **how)
    job.calibration.gather_skipped()
    enlarged = job.calibration.enlarged - before
    if 2 * enlarged > len(job.calibration):
        pixels = "x".join(map(str, job.loaded.data.input_size[1:]))
        job.notes.append(ENLARGED.format(enlarged=enlarged, images=len(job.calibration), size=pixels))
    _note_few(job, active, moments)
    return moments


def _note_few(job: Job, layers: Sequence[Layer], moments: Moments) -> None:
    short = [layer for layer in layers if layer.name in moments and moments[layer.name].count < 2 * layer.patch]
    if short and job.calibration is not None:
        need = max(-(-2 * layer.patch * len(job.calibration) // moments[layer.name].count) for layer in short)
        job.notes.append(
            f"{len(job.calibration)} calibration images are few for {len(short)} wide layers (the widest needs {need});"
            " their moments are averaged with a simpler form"
        )
