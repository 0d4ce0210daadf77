"""Fine-tuning a converted net: the original is the teacher, so no image needs a label.

settings.py says what is asked for, loss.py and subnets.py what is lowered, training.py is the loop, length.py how long
it is, sizes.py at which sizes it runs, codes.py how it moves integers, average.py its moving average, state.py what a
stopped run goes on from, norms.py how frozen norms cost nothing, rate.py the door to timm's optimisers, engine.py that
to Accelerate.

BatchNorm's statistics stay as they are: the net is trained in eval mode, so that a small set of images cannot spoil
them, and so is the teacher, which sees the same view of the same image.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.errors import DataError, RecipeError
from ...core.processes import sharing
from ...core.specs import DataConfig, Progress
from ...inputs.data import Data, Views, as_images, batches
from ...network.blocks import Block, find_blocks
from ...network.derive import trainable
from ...network.folder.report import FinetuneReport
from .codes import Codes
from .engine import Engine
from .look import Look
from .loss import Objective, distillation, stage_ends, trained_bases
from .modes import untouched
from .norms import norm_pairs, plain_convolutions
from .settings import Settings
from .state import assign
from .subnets import fit_subnets, subnet_ends
from .training import Keeping, Training

__all__ = ["Codes", "Keeping", "Settings", "distillation", "finetune"]


def finetune(
    model: nn.Module,
    original: nn.Module,
    images: Data,
    settings: Settings | None = None,
    *,
    heldout: Data | None = None,
    config: DataConfig | None = None,
    nested: Collection[str] = (),
    teacher: nn.Module | None = None,
    codes: Codes | None = None,
    keeping: Keeping | None = None,
    track: Path | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Train `model` towards the answers of `teacher`, which is `original` where no other net is given, in place.

    Images of a folder or dataset are seen in random views of the size that `config` says; tensors as they are.
    `nested` names the layers whose directions are in order; `codes` are the coded tensors, where these train. `track`
    is a folder for TensorBoard. Both nets are moved to `device`. Raises GuardError KD802, the best tensors put back,
    when the loss does not stay finite; ModelError KD308 when a net does not return logits, KD310 where it has no parts
    for `subnets`; DataError KD403 for a label loss without labels, KD408; RecipeError KD208 for `orthogonality` where
    nothing is shared and `sampled` where nothing is nested; FolderError KD604, KD610; KeyboardInterrupt, the state
    written, on Ctrl-C or SIGTERM.
    """
    settings = settings or Settings()
    source, held = as_images(images), None if heldout is None else as_images(heldout)
    if settings.label_weight and not source.labelled:
        raise DataError("KD403", "these images have no labels, and a label weight needs them; give folders by class")
    if settings.sampled and not nested:
        why = "this net's directions are in no order; convert it with `nested: true`, or leave --sampled out"
        raise RecipeError("KD208", f"sampled: {why}")
    engine = Engine(settings, None if device is None else torch.device(device), track)
    teacher = original if teacher is None else teacher
    for net in (model, original, teacher):
        net.to(engine.device)
    with sharing(), untouched(model, original, *([] if teacher is original else [teacher])):
        look = Look(model, teacher, held, settings)
        trained, params = trainable(model, settings.train, frozenset() if codes is None else codes.ids)
        example = next(iter(batches(source, 2)))[0].to(engine.device)
        found = _blocks(original, example)
        stages = stage_ends(original, found, example) if settings.feature_weight else ()
        views = Views(source, config, settings.seed, settings.augment, settings.mixup)
        ends = subnet_ends(original, found, example) if settings.subnets else ()
        part = settings.batch_size // settings.accumulate
        subnets = fit_subnets(original, ends, example, views, part, settings.seed) if ends else None
        training = Training(
            engine,
            Objective(model, original, teacher, stages, _bases(model, settings), settings, ends, subnets),
            source,
            views,
            norm_pairs(original, model, found, example),
            look,
            keeping or Keeping(),
            progress,
            nested if settings.sampled else (),
            codes,
        )
        try:
            ran = training.run()
            assign(training.kept, ran.state.best)
            if codes is not None:
                codes.settle()
        finally:
            engine.close()
        numbers = ran.state.numbers
        return FinetuneReport(
            steps=numbers.step,
            trained=trained,
            params=params,
            losses=numbers.losses,
            before=look.before,
            after=look.divergence(),
            kept=held is None or numbers.best > 0,
            seconds=numbers.elapsed,
            images_per_second=ran.images_per_second,
            falls=numbers.falls,
            ended=ran.ended,
            lr=training.rate,
            settings=settings.said(),
        )


def _bases(model: nn.Module, settings: Settings) -> tuple[nn.Parameter, ...]:
    bases = trained_bases(model) if settings.orthogonality else ()
    if settings.orthogonality and not bases:
        raise RecipeError("KD208", "orthogonality: no family of this net has a shared tensor with rows; leave it out")
    return bases


def _blocks(original: nn.Module, example: Tensor) -> tuple[Block, ...]:
    return find_blocks(original, plain_convolutions(original), example)
