"""The fine-tune of a conversion: its teacher rebuilt, its images divided, and what the report says of it."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import GuardError, ModelError, RecipeError
from ..core.progress import as_progress
from ..core.specs import DataConfig, Plan, Progress, to_json
from ..inputs.data import Data, Images, batches, check_classes, split
from ..inputs.models import state_digest
from ..network.derive import fold
from ..network.folder import Conversion, open_folder, original_of, uncoded
from ..routing import routers
from ..stages.evaluate.accuracy import divergence_from
from ..stages.finetune import Keeping, Settings
from ..stages.finetune import finetune as finetune_net
from .code import CODED, codes_of, recoded
from .images import digest_of, images_of
from .nets import Model, conversion_of, device_of_name, load_any, outputs_of

# Images held back to look at: at most so many, and at most this share of them.
HELD, HELD_SHARE = 1000, 0.2


def finetune(
    folder: str | Path | Conversion,
    *,
    data: Data | str | Path,
    class_map: str | Path | None = None,
    teacher: Model | None = None,
    teacher_checkpoint: str | None = None,
    work: Path | None = None,
    resume: bool = False,
    log: Path | None = None,
    track: Path | None = None,
    device: str = "auto",
    progress: Progress | bool | None = None,
    **said: Any,
) -> Conversion:
    """Train a conversion's adapters towards the original's answers, or those of another `teacher`. Returns another
    conversion.

    What is coded is trained uncoded, but by `train="norms"`, which leaves the codes as they are and its file as large,
    and by `train="codes"`, which trains them as well, in no more bytes.

    `said` are the fields of finetune.Settings: train, epochs, steps or seconds, lr, batch_size ... Into the folder
    `work` goes what a stopped run is gone on from, by `resume`; into the file `log` a line of JSON a step. Raises
    FolderError KD607 when the original cannot be rebuilt, KD610 when `work` is of another run, DataError KD401, KD402
    and KD403, GuardError KD802 when the loss does not stay finite, RecipeError KD208.
    """
    progress = as_progress(progress)
    settings = Settings(**said)
    before = folder if isinstance(folder, Conversion) else open_folder(folder)
    before = before if settings.train in CODED else uncoded(before)
    if teacher is None and not settings.label_weight and _is_original(before):
        why = "this net answers as its original does, and has nothing to learn from it"
        raise RecipeError("KD208", f"{why}: pass --teacher MODEL, or --label-weight 1 with images by class")
    student = copy.deepcopy(before.model)
    original = original_of(before.plan.model).model
    taught = None if teacher is None else _teacher(teacher, teacher_checkpoint, original, before.data)
    nested = before.plan.nested
    images = images_of(data, before.data, class_map, None, settings.seed)
    if settings.label_weight:
        check_classes(images, outputs_of(original, before.data))
    kept = min(HELD, int(len(images) * HELD_SHARE))
    held, rest = split(images, [kept, len(images) - kept], settings.seed)
    mark = _mark(student, before.plan, settings, rest, taught) if work is not None else ""
    tuned = finetune_net(
        student,
        original,
        rest,
        settings,
        heldout=held if len(held) else None,
        nested=[name for family in before.plan.families if family.members[0] in nested for name in family.members],
        config=before.data,
        teacher=taught,
        codes=codes_of(before, student) if settings.train == "codes" else None,
        keeping=Keeping(work, resume, mark, log),
        track=track,
        device=device_of_name(device),
        progress=progress,
    )
    images.gather_skipped()
    tuned = replace(tuned, skipped=tuple(images.skipped), teacher=None if teacher is None else str(teacher))
    report = replace(before.report, finetune=tuned)
    # of a net that was taught by another, the distance from the original is not known
    report = report.with_stage("finetune", tuned.after) if taught is None else replace(report, divergence=None)
    done = replace(before, model=student.cpu().eval(), report=report)
    return done if before.coded is None else _recoded(done, taught or original, held)


def hold(conversion: Conversion, max_drop: float) -> None:
    """Raises GuardError KD801 when a fine-tuned conversion changes more than so many of a hundred held-back images'
    answers, or none were held back.
    """
    tuned = conversion.report.finetune
    after = None if tuned is None else tuned.after
    if after is None:
        raise GuardError("KD801", "no images were held back to see what --max-drop asks; give more of them")
    drop = 100 * (1 - after.agreement)
    if drop > max_drop:
        seen = f"{drop:.2f} % of the answers to {after.images:,} held-back images are not the teacher's"
        raise GuardError("KD801", f"{seen}, and --max-drop allows {max_drop:g}; the best that was found is kept")


def _is_original(conversion: Conversion) -> bool:
    """Whether nothing was done to the net but to put a routing on it, which is not trained yet."""
    plan, gates = conversion.plan, routers(conversion.model).values()
    if plan.families or not gates or not all(router.is_identity() for router in gates):
        return False
    return state_digest(fold(copy.deepcopy(conversion.model))) == plan.model.sha256


def _recoded(conversion: Conversion, teacher: nn.Module, held: Images) -> Conversion:
    """The trained conversion within the bytes that it had, and how far that is from its teacher."""
    found, tuned = recoded(conversion), conversion.report.finetune
    if len(held):
        teacher.cpu().eval()
        seen = divergence_from(teacher, [inputs for inputs, _ in batches(held, 100)])(found.model)
        report = replace(found.report, finetune=tuned and replace(tuned, after=seen))
        found.report = report.with_stage("finetune", seen) if "finetune" in report.stages else report
    return found


def _teacher(model: Model, checkpoint: str | None, original: nn.Module, config: DataConfig) -> nn.Module:
    """Another net than the original to learn from. Raises ModelError KD311 where it answers another question."""
    conversion = conversion_of(model)
    if conversion is None:
        loaded = load_any(model, checkpoint, None)
        net, own = loaded.model, loaded.data
    else:
        net, own = conversion.model, conversion.data
    theirs, ours = outputs_of(net, config), outputs_of(original, config)
    if theirs != ours:
        raise ModelError("KD311", f"the teacher {model} tells {theirs} classes apart, and the net {ours}")
    if (own.mean, own.std) != (config.mean, config.std):
        raise ModelError(
            "KD311",
            f"the teacher {model} sees images of mean {own.mean} and std {own.std}, the net of {config.mean}, "
            f"{config.std}",
        )
    return net.eval()


def _mark(student: nn.Module, plan: Plan, settings: Settings, images: Images, teacher: nn.Module | None) -> str:
    """What must be as it was for a stopped run to be gone on with."""
    said = [settings.said(), to_json(plan), state_digest(student), digest_of(images, 2)]
    said += [] if teacher is None else [state_digest(teacher)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
