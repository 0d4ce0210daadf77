"""Healing while converting: a short fine-tune after every family, of the net as far as it is converted.

A family converted after the others were trained meets a net that has made up for them; done at once, their errors add
up. Kernels that are not converted yet are not trained, so that each family is still fitted to the original's own.
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
    """Raises DataError KD401 for a job that is to heal without images, KD410 for one of several processes."""
    if job.recipe.fit.progressive is not None and count() > 1:
        raise DataError("KD410", "fit.progressive trains in one process; leave out the launcher")
    if job.recipe.fit.progressive is not None and job.training is None:
        raise DataError("KD401", "fit.progressive trains after every family, which takes images; pass --data")


def healer(job: Job, progress: Progress | None) -> Heal | None:
    """What trains the adapters towards the original for the recipe's number of steps; None where it wants none.

    Trained on all images but those held out, by which the best is kept, be it the start.
    """
    steps, images = job.recipe.fit.progressive, job.training
    if steps is None or images is None:
        return None
    settings = Settings(steps=steps, batch_size=BATCH, save_every=steps, seed=job.recipe.seed)

    def heal(net: nn.Module) -> Divergence | None:
        original = job.loaded.model
        try:
            tuned = finetune(
                Student(net, original),
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
