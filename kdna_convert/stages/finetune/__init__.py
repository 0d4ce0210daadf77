"""Fine-tune a converted net. The original is the teacher, so images need no labels.

The settings are in inputs/finetune_settings.py. student.py has the nets, trainable.py chooses the parameters, loss.py
and subnets.py have the loss, trainer.py the loop, steps.py the optimizer's steps, validation.py the held-out images,
length.py the length, sampled_sizes.py the sizes of a nested net, codes.py the training of integers, average.py the
moving average, training_state.py the state of a stopped run, folded_norms.py the folded norms. Only rate.py uses timm's
optimizers, and only engine.py uses Accelerate.

The net and its teacher are in eval mode, so that a small set of images does not change the BatchNorm statistics. Both
see the same view of the same image.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn

from ...core.errors import DataError, RecipeError
from ...core.processes import sharing
from ...core.specs import DataConfig, Progress
from ...inputs.data import Data, Images, Views, as_images, batches
from ...inputs.finetune_settings import Settings
from ...network.blocks import find_blocks
from ...network.folder.report import FinetuneReport, Look
from .codes import Codes
from .engine import Engine
from .folded_norms import Pair, norm_pairs, plain_convolutions
from .loss import Objective, stage_ends, trained_bases
from .restore_flags import restored_flags
from .student import RunFiles, Student
from .subnets import fit_subnets, subnet_ends
from .trainable import trainable
from .trainer import Trainer, TrainingResult
from .training_state import Numbers, assign
from .validation import Validation

__all__ = ["Codes", "RunFiles", "Settings", "Student", "finetune"]


def finetune(
    student: Student,
    images: Data,
    settings: Settings | None = None,
    *,
    heldout: Data | None = None,
    config: DataConfig | None = None,
    files: RunFiles | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Train the model of `student`, in place, to match the outputs of its teacher.

    Args:
        student: the nets; all are moved to `device`.
        images: images. Those of a folder or dataset are augmented, tensors are used as they are.
        settings: the settings. Default: `Settings()`.
        heldout: images that select the best step, which is kept. Default: the last step is kept.
        config: the input size and the normalization.
        files: where the state and the log are written.
        device: the device. Default: Accelerate's.
        progress: called with (what, done, total).

    Raises:
        GuardError: KD802 if the loss does not stay finite; the best tensors are restored.
        ModelError: KD308 for outputs of another task, KD310 for one without stages for `subnets`.
        DataError: KD403 for a label loss without labels, KD408 for a batch that processes cannot divide.
        RecipeError: KD208 for `orthogonality` without shared tensors, or `sampled` without a nested conversion.
        FolderError: KD604 for a state that cannot be written, KD610 for the state of another run.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the state is written.
    """
    settings, files = settings or Settings(), files or RunFiles()
    source, held = as_images(images), None if heldout is None else as_images(heldout)
    _check(student, source, settings)
    engine = Engine(settings, None if device is None else torch.device(device), files.track)
    student.to(engine.device)
    with sharing(), restored_flags(*student.nets):
        validation = Validation(student, held, settings)
        counts = trainable(student.model, settings.train, frozenset() if student.codes is None else student.codes.ids)
        views = Views(source, config, settings.seed, settings.augment, settings.mixup)
        objective, pairs = _objective(student, source, views, settings, engine.device)
        trainer = Trainer(engine, objective, source, views, pairs, validation, files, progress)
        try:
            result = trainer.run()
            assign(trainer.kept, result.state.best)
            if student.codes is not None:
                student.codes.round_in_place()
        finally:
            engine.close()
        return _report(result, counts, validation, settings, trainer.rate)


def _check(student: Student, images: Images, settings: Settings) -> None:
    if settings.label_weight and not images.labeled:
        raise DataError(
            "KD403", "label_weight needs labels, and these images have none; pass a folder with one subfolder per class"
        )
    if settings.sampled and not student.nested:
        why = "the conversion is not nested; convert with `nested: true`, or leave out --sampled"
        raise RecipeError("KD208", f"sampled: {why}")


def _objective(
    student: Student, images: Images, views: Views, settings: Settings, device: torch.device
) -> tuple[Objective, tuple[Pair, ...]]:
    """The loss, and the norms that can be folded into the convolution before them."""
    original = student.original
    example = next(iter(batches(images, 2)))[0].to(device)
    blocks = find_blocks(original, plain_convolutions(original), example)
    stages = stage_ends(original, blocks, example) if settings.feature_weight else ()
    ends = subnet_ends(original, blocks, example) if settings.subnets else ()
    part = settings.batch_size // settings.accumulate
    subnets = fit_subnets(original, ends, example, views, part, settings.seed) if ends else None
    objective = Objective(student, stages, _bases(student.model, settings), settings, ends, subnets)
    return objective, norm_pairs(original, student.model, blocks, example)


def _bases(model: nn.Module, settings: Settings) -> tuple[nn.Parameter, ...]:
    bases = trained_bases(model) if settings.orthogonality else ()
    if settings.orthogonality and not bases:
        raise RecipeError(
            "KD208", "orthogonality: no family of this net has a shared tensor with two or more axes; leave it out"
        )
    return bases


def _report(
    result: TrainingResult, counts: tuple[int, int], validation: Validation, settings: Settings, rate: float
) -> FinetuneReport:
    numbers, (trained, params) = result.state.numbers, counts
    return FinetuneReport(
        steps=numbers.step,
        trained=trained,
        params=params,
        losses=numbers.losses,
        before=validation.before,
        after=validation.divergence(),
        kept=validation.held is None or numbers.best > 0,
        seconds=numbers.elapsed,
        images_per_second=result.images_per_second,
        falls=numbers.falls,
        ended=result.ended,
        lr=rate,
        settings=asdict(settings),
        looks=_looks(numbers),
    )


def _looks(numbers: Numbers) -> tuple[Look, ...]:
    """The validations after the first. `kls` is empty without held-out images."""
    heldout = numbers.kls[1:] or (None,) * len(numbers.places)
    rows = zip(numbers.places, numbers.losses, heldout, strict=False)
    return tuple(Look(step, seconds, loss, agreement, lr, held) for (step, seconds, lr, agreement), loss, held in rows)
