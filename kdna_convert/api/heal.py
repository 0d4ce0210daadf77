"""Heal a net during the conversion: a short fine-tune after every family.

When a family is converted, the net has already learned to compensate the errors of the families before it. If all
families are converted at once, their errors add up. Kernels that are not converted yet are not trained, so each family
is fitted to the original kernels.
"""

from __future__ import annotations

from torch import nn

from ..core.errors import DataError
from ..core.measurements import Divergence
from ..core.processes import count
from ..core.specs import Progress
from ..stages.convert.fit import Heal
from ..stages.finetune import Settings, Student, finetune
from .job import Job

BATCH = 128


def require_images(job: Job) -> None:
    """Raise DataError KD401 if the job heals without images, KD410 if it runs in several processes."""
    if job.recipe.fit.progressive is not None and count() > 1:
        raise DataError("KD410", "fit.progressive trains in one process; leave out the launcher")
    if job.recipe.fit.progressive is not None and job.training is None:
        raise DataError("KD401", "fit.progressive trains after every family, which takes images; pass --data")


def healer(job: Job, progress: Progress | None) -> Heal | None:
    """A function that trains the adapters for the recipe's number of steps; None if the recipe has none.

    The original is the teacher. Training uses all images except the held-out ones, which select the best step; the
    state before the first step can be the best.
    """
    steps, images = job.recipe.fit.progressive, job.training
    if steps is None or images is None:
        return None
    settings = Settings(steps=steps, batch_size=BATCH, save_every=steps, seed=job.recipe.seed)

    def heal(net: nn.Module) -> Divergence | None:
        original = job.loaded.model
        try:
            tuned = finetune(
                Student(net, original, task=job.task),
                images,
                settings,
                heldout=job.heldout,
                config=job.loaded.data,
                device=job.device,
                progress=progress,
            )
        finally:
            for each in (net, original):
                each.cpu()
        return tuned.after

    return heal
