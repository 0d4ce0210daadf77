"""The verb `analyze`: every layer, and the similarity of layers that could share kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.amounts import count
from ..core.measurements import Analysis
from ..core.progress import as_progress
from ..core.specs import Layer, Progress
from ..html import Material
from ..inputs.data import Data
from ..inputs.recipe import Recipe
from ..schemes import make
from ..stages.analyze.groups import Clustering
from ..stages.analyze.groups import analyze as compare_layers
from .cached_moments import moments_of
from .job import Job, open_job
from .keywords import JobOptions, check_keywords
from .layer_pictures import kernel_pictures
from .nets import Model
from .result_pages import machine

if TYPE_CHECKING:
    from typing_extensions import Unpack


def analyze(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    metric: str | None = None,
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[JobOptions],
) -> Analysis:
    """Survey a model and measure how similar the layers are that could share under the recipe's scheme.

    Args:
        model: a model name, a converted folder, or a module.
        recipe: a recipe, its name, or its file.
        metric: the similarity that the families are formed by: explained, angles, cka or cosine. Default: the
            recipe's.
        data: unlabeled images that the moments are measured on: a path, a tensor of inputs, or batches.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: checkpoint, checkpoint_key, checkpoint_prefix, inputs, class_map, data_free, moments, device, task
            and outputs, as for `convert`.

    Raises:
        KdnaError: what reading the model, recipe and data raises; see `kdna explain`.
    """
    return _analyzed(model, recipe, metric, data, as_progress(progress), options)[1]


def analyze_material(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    metric: str | None = None,
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[JobOptions],
) -> Material:
    """The same with pictures of the kernels, for a page. Its arguments are those of `analyze`."""
    job, analysis = _analyzed(model, recipe, metric, data, as_progress(progress), options)
    images = None if job.calibration is None else len(job.calibration)
    on = "synthetic noise, since no images were given" if images is None else f"{count(images)} images"
    return Material(
        title=f"Layers of {model if isinstance(model, str | Path) else type(model).__name__}",
        analysis=analysis,
        compared=f"Measured on {on}.",
        kernels=kernel_pictures(job.loaded.model, analysis),
        machine=machine(),
    )


def _analyzed(
    model: Model,
    recipe: Recipe | str,
    metric: str | None,
    data: Data | str | Path | None,
    progress: Progress | None,
    options: JobOptions,
) -> tuple[Job, Analysis]:
    check_keywords("analyze", options, JobOptions)
    job = open_job(model, recipe, data, options, progress)
    moments = moments_of(job, options.get("moments"), progress)
    families = job.recipe.families
    analysis = compare_layers(
        job.loaded.model,
        job.layers,
        moments,
        group=lambda layer: _group(job, layer),
        clustering=Clustering(metric or families.metric, families.linkage, families.threshold, families.count),
        progress=progress,
    )
    return job, analysis


def _group(job: Job, layer: Layer) -> object:
    """Layers with the same key can share a family."""
    assignment = next(each for each in job.assignments if each.layer == layer.name)
    scheme = make(assignment.scheme or "cp", assignment.options if assignment.scheme else {})
    return assignment.scheme, scheme.group(layer.shape), layer.groups
