"""The verb `finetune`: train a conversion to match the logits of the original or of another teacher."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.errors import FolderError, GuardError, ModelError, RecipeError
from ..core.progress import as_progress
from ..core.specs import DataConfig, Plan, Progress, to_json
from ..inputs.data import Data, Images, batches, split
from ..inputs.models import carried_cfg, state_digest, unwrapped_copy
from ..network.derive import fold
from ..network.folder import Conversion, original_of, uncoded
from ..network.folder.report import FinetuneReport, Report
from ..routing import routers
from ..stages.evaluate.accuracy import divergence_from
from ..stages.finetune import RunFiles, Settings, Student
from ..stages.finetune import finetune as finetune_net
from ..tasks import Task
from .code import CODED, codes_of, recoded
from .heldout_metrics import agreement
from .keywords import FinetuneOptions, check_keywords
from .net_task import Metric, conversion_task, metric_of
from .nets import Model, check_labels, classes_of, conversion_of, device_of_name, load_any, opened, require_inputs
from .splits import digest_of, images_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Images held out for validation: the largest number, and the largest share.
HELD, HELD_SHARE = 1000, 0.2
# Keywords of the verb that are not settings.
FILES = (
    "model", "trust_code", "teacher_checkpoint", "work", "resume", "log", "track", "task", "outputs", "metric"
)  # fmt: skip


def finetune(
    folder: str | Path | Conversion,
    *,
    data: Data | str | Path,
    class_map: str | Path | None = None,
    teacher: Model | None = None,
    device: str = "auto",
    progress: Progress | bool | None = None,
    **options: Unpack[FinetuneOptions],
) -> Conversion:
    """Fine-tune a conversion by distillation from the original net. Needs no labels.

    A coded conversion is trained uncoded, except with `train="norms"`, which keeps its codes, and `train="codes"`,
    which trains them; the file then keeps its size.

    Args:
        folder: a converted folder, or a conversion, which is not changed.
        data: images: a path, a tensor of inputs, or batches. At most 1,000 of them, and at most a fifth, are held out.
        class_map: a file of class names, one per line, in the order of the net's outputs.
        teacher: another net to learn from instead of the original, or the original itself as a module.
        device: auto, cpu, cuda, cuda:1 or mps.
        progress: True for a bar on stderr, or a function of (what, done, total).
        **options: the settings of `kdna finetune`: train, epochs, steps or seconds, lr, batch_size ... (see
            inputs/finetune_settings.py); `teacher_checkpoint`, the teacher's weights; `work`, a folder for the state,
            from which `resume` continues a stopped run; `log`, a file for one line of JSON per step; `track`, a folder
            for TensorBoard; `model`, a module of the original's architecture, for a net that kdna cannot build by name
            (with the original's weights, unless the conversion used a checkpoint); `trust_code`, to run the code that
            the folder, or a teacher's folder, names; `task`, `outputs` and `metric`, as for `convert`.

    Returns:
        The trained conversion, with its divergence on the held-out images.

    Raises:
        FolderError: KD607 if the original cannot be rebuilt, KD611 if that needs `trust_code`, KD610 if `work` is of
            another run.
        DataError: KD401 without images, KD402 for other classes, KD403 for a label loss without labels.
        ModelError: KD311 for a teacher of other classes or inputs.
        GuardError: KD802 if the loss does not stay finite.
        RecipeError: KD208 for invalid settings.
    """
    check_keywords("finetune", options, FinetuneOptions)
    progress = as_progress(progress)
    settings = _settings(options)
    before = opened(folder, options)
    before = before if settings.train in CODED else uncoded(before)
    before, original, other = _teachers(before, teacher, options)
    if other is None and not settings.label_weight and _is_original(before):
        why = "this net answers as its original does, and has nothing to learn from it"
        raise RecipeError("KD208", f"{why}: pass --teacher MODEL, or --label-weight 1 with images by class")
    images = images_of(data, before.data, class_map, None, settings.seed)
    require_inputs(before.model, images, original, other)
    task, metric = conversion_task(before, options), metric_of(options)
    if settings.label_weight:
        check_labels(images, original, before.data, task)
    kept = min(HELD, int(len(images) * HELD_SHARE))
    held, rest = split(images, [kept, len(images) - kept], settings.seed)
    student = replace(_student(before, original, other, settings), task=task)
    tuned = finetune_net(
        student,
        rest,
        settings,
        heldout=held if len(held) else None,
        config=before.data,
        files=_files(options, student, before.plan, settings, rest),
        device=device_of_name(device),
        progress=progress,
    )
    images.gather_skipped()
    if metric is not None and len(held):
        tuned = _with_metric(tuned, student, metric, held)
    tuned = replace(tuned, skipped=tuple(images.skipped), teacher=None if other is None else _name(teacher))
    done = replace(before, model=student.model.cpu().eval(), report=_report(before.report, tuned))
    return done if before.coded is None else _recoded(done, student, held)


def _settings(options: FinetuneOptions) -> Settings:
    given: dict[str, Any] = {name: value for name, value in options.items() if name not in FILES}
    return Settings(**given)


def _student(before: Conversion, original: nn.Module, teacher: nn.Module | None, settings: Settings) -> Student:
    """A copy of the conversion's net to train, with its original and its teacher."""
    model, nested = copy.deepcopy(before.model), before.plan.nested
    ordered = [name for family in before.plan.families if family.members[0] in nested for name in family.members]
    return Student(model, original, teacher, ordered, codes_of(before, model) if settings.train == "codes" else None)


def _files(options: FinetuneOptions, student: Student, plan: Plan, settings: Settings, images: Images) -> RunFiles:
    work = options.get("work")
    mark = "" if work is None else _mark(student, plan, settings, images)
    return RunFiles(work, options.get("resume", False), mark, options.get("log"), options.get("track"))


def _report(before: Report, tuned: FinetuneReport) -> Report:
    """The report with the fine-tune. With another teacher the divergence from the original is not known."""
    report = replace(before, finetune=tuned)
    return replace(report, divergence=None) if tuned.teacher else report.with_stage("finetune", tuned.after)


def hold(conversion: Conversion, max_drop: float) -> None:
    """Check that a fine-tuned conversion changes at most `max_drop` % of the answers to held-out images.

    With a metric of the user's, check that it lost at most `max_drop` of that.

    Raises:
        GuardError: KD801 if it changes more, or no images were held out.
        ModelError: KD308 for a task without answers.
    """
    tuned = conversion.report.finetune
    after = None if tuned is None else tuned.after
    if after is None:
        raise GuardError("KD801", "no images were held out, so that --max-drop cannot be checked; pass more images")
    if tuned is not None and tuned.teacher_metric is not None:
        lost = tuned.teacher_metric - after.measures["metric"]
        if lost > max_drop:
            change = f"the metric is {lost:g} lower than the teacher's"
            raise GuardError("KD801", f"{change}, and --max-drop allows {max_drop:g}; the best step is kept")
        return
    if (share := agreement(after)) is None:
        raise ModelError("KD308", f"--max-drop counts answers, and the task {after.task} has none; leave it out")
    drop = 100 * (1 - share)
    if drop > max_drop:
        change = f"{drop:.2f} % of the answers to {after.images:,} held-out images are not the teacher's"
        raise GuardError("KD801", f"{change}, and --max-drop allows {max_drop:g}; the best step is kept")


def _with_metric(tuned: FinetuneReport, student: Student, metric: Metric, held: Images) -> FinetuneReport:
    """The report with the user's metric of the trained net and of its teacher on the held-out images."""
    own, target = (metric(net.cpu(), batches(held, 100)) for net in (student.model, student.teacher))
    after = tuned.after and replace(tuned.after, measures={**tuned.after.measures, "metric": own})
    return replace(tuned, after=after, teacher_metric=target)


def _is_original(conversion: Conversion) -> bool:
    """Whether the net differs from the original only by a routing that is not trained yet."""
    plan, gates = conversion.plan, routers(conversion.model).values()
    if plan.families or not gates or not all(router.is_identity() for router in gates):
        return False
    return state_digest(fold(copy.deepcopy(conversion.model))) == plan.model.sha256


def _recoded(conversion: Conversion, student: Student, held: Images) -> Conversion:
    """The trained conversion, coded again in the same bytes, and its divergence from the teacher."""
    folded, tuned = recoded(conversion), conversion.report.finetune
    if len(held):
        teacher, inputs = student.teacher.cpu().eval(), [inputs for inputs, _ in batches(held, 100)]
        divergence = divergence_from(teacher, inputs, student.task)(folded.model)
        report = replace(folded.report, finetune=tuned and replace(tuned, after=divergence))
        folded.report = report.with_stage("finetune", divergence) if "finetune" in report.stages else report
    return folded


def _teachers(
    before: Conversion, teacher: Model | None, options: FinetuneOptions
) -> tuple[Conversion, nn.Module, nn.Module | None]:
    """The conversion, its original, and the teacher that replaces it.

    A module with the original's weights is the original. Without the original, the teacher replaces it.
    """
    if isinstance(teacher, nn.Module):
        own = unwrapped_copy(teacher).cpu().float().eval()
        if state_digest(own) == before.plan.model.sha256:
            return replace(before, origin=replace(before.origin, module=own)), own, None
    try:
        original = original_of(before).model
    except FolderError:
        if teacher is None:
            raise
        other = _teacher(teacher, options, before.model, before.data, conversion_task(before, options))
        return before, other, other
    if teacher is None:
        return before, original, None
    return before, original, _teacher(teacher, options, original, before.data, conversion_task(before, options))


def _name(teacher: Model | None) -> str:
    """A name for messages and the report."""
    kind = type(teacher)
    return f"{kind.__module__}:{kind.__qualname__}" if isinstance(teacher, nn.Module) else str(teacher)


def _teacher(model: Model, options: FinetuneOptions, original: nn.Module, config: DataConfig, task: Task) -> nn.Module:
    """The teacher that replaces the original. Raises ModelError KD311 for other classes or inputs."""
    conversion = conversion_of(model, options.get("trust_code", False))
    if conversion is None:
        loaded = load_any(model, options.get("teacher_checkpoint"), None)
        net, own = loaded.model, loaded.data
    else:
        net, own = conversion.model, conversion.data
    theirs, ours = (classes_of(each, config, task) for each in (net, original))
    if theirs != ours:
        raise ModelError("KD311", f"the teacher {_name(model)} has {theirs} classes, and the net {ours}")
    declared = not isinstance(model, nn.Module) or {"mean", "std"} <= carried_cfg(model).keys()
    if declared and (own.mean, own.std) != (config.mean, config.std):
        takes = f"takes images of mean {own.mean} and std {own.std}"
        raise ModelError("KD311", f"the teacher {_name(model)} {takes}, the net of {config.mean}, {config.std}")
    return net.eval()


def _mark(student: Student, plan: Plan, settings: Settings, images: Images) -> str:
    """The hash of everything that must match for a stopped run to be resumed."""
    parts = [asdict(settings), to_json(plan), state_digest(student.model), digest_of(images, 2)]
    parts += [] if student.other_teacher is None else [state_digest(student.other_teacher)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
