"""The moments of a job's layers: read from a file, collected on images, or from noise without images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.fingerprint import Fingerprint, parts_of
from ..core.processes import end_other_processes, gather
from ..core.specs import Layer, Progress
from ..inputs.data import Inputs, Reading
from ..inputs.recipe import Recipe
from ..stages.analyze.collect import Sampling, collect
from ..stages.analyze.data_free import BATCH, data_free
from ..stages.analyze.moments import Moments
from ..stages.analyze.moments_file import load_moments, save_moments
from ..stages.plan.files import fingerprint
from .job import Job
from .splits import digest_of

NO_GRADIENT = (
    "calibrated without gradients (KD118): the net returns no logits, one row per image, or has no backward pass; the "
    "layers' relative errors count alike"
)

ENLARGED = (
    "{enlarged} of {images} calibration images are smaller than the net's input of {size} pixels and were enlarged; "
    "that makes them smoother than the images the net will see: pass larger ones, or --input-size"
)


def moments_of(job: Job, path: str | Path | None, progress: Progress | None) -> Moments:
    """Read the moments from the file at `path`, or collect them and write it.

    All processes collect, and only the first returns: it alone does the rest of the verb.

    Raises:
        PlanError: KD505 for a file of another model, recipe, data or settings.
    """
    active = [layer for layer in job.layers if layer.reason is None]
    if not active:  # everything stays dense
        end_other_processes()
        return {}
    made_from = _made_from(job, active, path)
    exists = path is not None and Path(path).exists()
    if gather(exists)[0]:
        end_other_processes()
    if path is not None and exists:
        return _noted(job, load_moments(path, made_from))
    moments = _collected(job, active, progress)
    end_other_processes()
    if path is not None:
        save_moments(path, moments, made_from)
    return _noted(job, moments)


def _noted(job: Job, moments: Moments) -> Moments:
    if moments and not any(layer.sensitivity for layer in moments.values()):
        job.notes.append(NO_GRADIENT)
    return moments


def _made_from(job: Job, active: Sequence[Layer], path: str | Path | None) -> Fingerprint:
    """The fingerprint of what the moments depend on. Without a file, the images are not read."""
    settings, seed = job.recipe.calibration, job.recipe.seed
    model, inputs = job.loaded.ref.sha256, job.loaded.data
    images = digest_of(job.calibration, settings.batch) if path is not None else None
    layers = [layer.name for layer in active]
    recipe = Recipe(scheme="cp", calibration=settings, seed=seed)
    whole = fingerprint(recipe, model=model, inputs=inputs, images=images, layers=layers)
    chosen = [settings.model_dump(mode="json"), seed, str(inputs), job.calibration is None]
    return Fingerprint(whole, parts_of(model=model, recipe=layers, data=images, settings=chosen))


def _collected(job: Job, active: Sequence[Layer], progress: Progress | None) -> Moments:
    if progress is not None:
        progress("calibrate", 0, 0)
    net, settings, seed = job.loaded.model, job.recipe.calibration, job.recipe.seed
    memory, batch = settings.memory, settings.batch
    if job.calibration is None:
        size, batch = job.loaded.data.input_size, min(batch, BATCH)
        how: dict[str, Any] = {"memory": memory, "seed": seed, "device": job.device, "progress": progress}
        return data_free(net, active, size, images=settings.images, batch=batch, **how)
    inputs, before = Inputs(Reading(job.calibration, batch)), job.calibration.enlarged
    moments = collect(
        net, active, inputs, memory=memory, sampling=Sampling(seed=seed), device=job.device, progress=progress
    )
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
