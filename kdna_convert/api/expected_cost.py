"""What a conversion is expected to take on this machine. Nothing is calibrated or fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.measurements import ExpectedCost
from ..core.progress import as_progress
from ..core.specs import Progress
from ..inputs.data import Data
from ..inputs.recipe import Recipe
from ..stages.evaluate.cost_model import expected_cost as of_layers
from ..stages.evaluate.machine_speed import machine_speed
from .job import open_job
from .keywords import JobOptions, check_keywords
from .nets import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack


def expected_cost(
    model: Model,
    *,
    recipe: Recipe | str = "balanced",
    data: Data | str | Path | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[JobOptions],
) -> ExpectedCost:
    """Expect the seconds and the memory of a conversion: load and survey the net, and time the machine.

    Args:
        model: a model name, a converted folder, or a module.
        recipe: a recipe, its name, or its file.
        data: unlabeled images: a path, a tensor of inputs, or batches. Only their number counts.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: as for `convert`.
    """
    check_keywords("expected_cost", options, JobOptions)
    job = open_job(model, recipe, data, options, as_progress(progress))
    images = 0 if job.calibration is None else len(job.calibration)
    return of_layers(job.layers, job.recipe, images, machine_speed(job.device))
