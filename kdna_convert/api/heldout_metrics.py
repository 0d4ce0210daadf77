"""Measure a net on the held-out images of a job: divergence from the original, or loss of accuracy in points."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ..core.errors import DataError, ModelError
from ..core.measurements import MEASURES, Divergence
from ..inputs.data import batches, check_classes
from ..stages.convert.fit import Measure
from ..stages.evaluate.accuracy import divergence_from
from ..stages.evaluate.outputs import statistics
from ..tasks import TASKS
from .job import Job
from .net_task import Metric
from .nets import classes_of


def measure_of(job: Job) -> Measure | None:
    """The divergence of a net from the original on the held-out images; the original's outputs are computed once."""
    if job.heldout is None:
        return None
    inputs = [inputs for inputs, _ in batches(job.heldout, job.recipe.calibration.batch)]
    return divergence_from(job.loaded.model, inputs, job.task)


def points_lost(job: Job, metric: Metric | None = None) -> tuple[Callable[[nn.Module], float], str]:
    """A function for what a net loses on the held-out images, and the name of the measure.

    It is the user's metric, or the measure of the task with labels, or without if the images have none. Shares are
    counted in points of percent.

    Raises:
        DataError: KD401 if no images are held out.
        ModelError: KD308 for a task without such a measure.
    """
    if job.heldout is None:
        raise DataError("KD401", "a drop is measured on held-out images; pass --data, with calibration.heldout above 0")
    heldout = list(batches(job.heldout, job.recipe.calibration.batch))
    original, task = job.loaded.model, job.task
    if metric is not None:
        whole = metric(original, heldout)
        return lambda net: whole - metric(net, heldout), "metric"
    by_label, by_original = task.points
    if by_label is not None and all(labels is not None for _, labels in heldout) and _fit_outputs(job):

        def scored(net: nn.Module) -> float:
            rows = statistics([net], heldout, lambda batch: task.score(batch.outputs[0], batch.labels), task=task)  # type: ignore[arg-type]
            return task.scores(rows)[by_label]

        top = scored(original)
        return lambda net: _unit(by_label) * (top - scored(net)), MEASURES[by_label].title
    if by_original is None:
        needed = "labels" if by_label else "--metric file.py:function"
        raise ModelError(
            "KD308", f"max_drop counts answers, and the task {task.name} has none; pass {needed}, or a size"
        )
    measure = divergence_from(original, [images for images, _ in heldout], task)

    def changed(net: nn.Module) -> float:
        share = agreement(measure(net))
        if share is None:
            title = MEASURES[by_original].title
            raise ModelError("KD308", f"{title} is not defined on the held-out images; give others, or a size")
        return 100 * (1 - share)

    return changed, MEASURES[by_original].title


def agreement(measured: Divergence) -> float | None:
    """The share of answers that agree, 0..1, by the measure that the task counts without labels; None without one."""
    name = TASKS[measured.task].points[1]
    own: Mapping[str, float | None] = {"agreement": measured.agreement, **measured.measures}
    return None if name is None else own.get(name)


def _unit(name: str) -> float:
    return 100 if MEASURES[name].unit == "%" else 1


def _fit_outputs(job: Job) -> bool:
    """Whether the labels are of the task, and the folders' classes the net's outputs."""
    if job.heldout is None or job.task.name != "classify":
        return job.heldout is not None and not job.heldout.classes
    try:
        check_classes(job.heldout, classes_of(job.loaded.model, job.loaded.data, job.task))
    except DataError:
        return False
    return True
