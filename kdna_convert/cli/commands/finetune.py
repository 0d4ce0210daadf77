"""`kdna finetune`: distillation of the original into a converted folder, also under `accelerate launch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ...core.errors import RecipeError
from .console import output_path, reporting, save_folder, show, show_json, tell, tell_remarks, tell_written
from .options import Folder, Force, Images, OutputFolder, Run, grouped

Part = Literal["norms", "codes", "adapters", "shared", "all"]
Precision = Literal["fp32", "bf16", "fp16"]
RESUME = "{why}. The state is in {work}. Run the same command with --resume to continue."
TRAIN_HELP = "What to train: norms, codes, adapters, shared or all. Norms and biases always train."


def _option(panel: str, help: str, *flags: str, **limits: Any) -> Any:  # noqa: A002 - typer's name for it
    return typer.Option(*flags, help=help, rich_help_panel=panel, **limits)


def _length(text: str | None) -> float | None:
    """`10m`, `90s`, `1.5h` in seconds."""
    if text is None:
        return None
    from ...inputs.recipe import parse_time

    try:
        return parse_time(text)
    except RecipeError as error:
        raise typer.BadParameter(error.message, param_hint="--time") from None


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the fields of finetune.Settings."""

    train: Annotated[Part, _option("Train", TRAIN_HELP, metavar="PART")] = "adapters"
    time: Annotated[str | None, _option("Train", "Length as a time: 90s, 10m or 1.5h.", metavar="TIME")] = None
    epochs: Annotated[
        float | None, _option("Train", "Length in passes over the images. Default: 5.", metavar="N", min=0.0)
    ] = None
    steps: Annotated[int | None, _option("Train", "Length in steps of --batch-size images.", metavar="N", min=1)] = None
    batch_size: Annotated[int, _option("Train", "Images per step, over all processes.", metavar="N", min=1)] = 128
    accumulate: Annotated[
        int, _option("Train", "Split each step into N mini-batches to save memory.", metavar="N", min=1)
    ] = 1
    lr: Annotated[
        float | None,
        _option("Train", "Peak learning rate, relative to each tensor's RMS. Default: estimated.", metavar="X"),
    ] = None
    shared_lr: Annotated[
        float | None,
        _option(
            "Train", "Learning rate of shared tensors; of codes, in integer steps. Default: --lr; 0.01.", metavar="X"
        ),
    ] = None
    opt: Annotated[str, _option("Train", "Optimizer, by its name in timm.", metavar="NAME")] = "adamw"
    clip: Annotated[float | None, _option("Train", "Maximum gradient norm.", metavar="X")] = None
    temperature: Annotated[float, _option("Train", "Temperature of the distillation loss.", metavar="X")] = 2.0
    label_weight: Annotated[
        float, _option("Train", "Weight of the cross-entropy with the labels.", metavar="X", min=0.0)
    ] = 0.0
    feature_weight: Annotated[
        float, _option("Train", "Weight of the error of the stages' outputs.", metavar="X", min=0.0)
    ] = 0.0
    orthogonality: Annotated[
        float, _option("Train", "Weight of the loss that keeps shared rows orthogonal.", metavar="X", min=0.0)
    ] = 0.0
    subnets: Annotated[
        float, _option("Train", "Weight of the loss of each stage's own answers.", metavar="X", min=0.0)
    ] = 0.0
    sampled: Annotated[
        bool, _option("Train", "Train half of the steps at smaller sizes. For nested folders.", "--sampled")
    ] = False
    ema: Annotated[
        float, _option("Train", "Decay of an exponential moving average, which is then kept.", metavar="X", min=0.0)
    ] = 0.0
    augment: Annotated[bool, _option("Train", "Random crops and horizontal flips. For folders and datasets.")] = True
    mixup: Annotated[float, _option("Train", "Alpha of mixup; 0 is off.", metavar="X", min=0.0)] = 0.0
    precision: Annotated[Precision, _option("Train", "fp32, bf16 or fp16.", metavar="TYPE")] = "fp32"
    seed: Annotated[int, _option("Train", "Seed of the order and the augmentation.", metavar="N", min=0)] = 0

    @property
    def arguments(self) -> dict[str, Any]:
        options = {name: value for name, value in vars(self).items() if name not in ("time", "clip")}
        clip = {} if self.clip is None else {"clip": self.clip}
        return {**options, **clip, "seconds": _length(self.time)}


@dataclass(frozen=True)
class Teacher:
    """A teacher other than the original net."""

    teacher: Annotated[
        str | None, _option("Train", "Distil from this net instead of the original.", metavar="MODEL")
    ] = None
    teacher_checkpoint: Annotated[str | None, _option("Train", "Weights of the teacher.", metavar="FILE")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"teacher": self.teacher, "teacher_checkpoint": self.teacher_checkpoint}


@dataclass(frozen=True)
class Safety:
    """What is saved during training, and when it ends early."""

    save_every: Annotated[int, _option("Safety", "Save the state and validate every N steps.", metavar="N", min=1)] = (
        100
    )
    resume: Annotated[bool, _option("Safety", "Resume a stopped run with the same arguments.", "--resume")] = False
    max_drop: Annotated[
        float | None,
        _option("Safety", "Exit with 3 if more than X % of the answers change.", metavar="X", min=0.0),
    ] = None
    patience: Annotated[
        int | None, _option("Safety", "Stop after N validations without improvement.", metavar="N", min=1)
    ] = None
    jsonl: Annotated[Path | None, _option("Safety", "Log one line of JSON per step.", metavar="FILE")] = None
    track: Annotated[Path | None, _option("Safety", "Log to this TensorBoard folder.", metavar="FOLDER")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        if self.track is not None and find_spec("tensorboard") is None:
            raise typer.BadParameter("requires tensorboard: pip install tensorboard", param_hint="--track")
        given = {"save_every": self.save_every, "resume": self.resume, "patience": self.patience}
        return {**given, "log": self.jsonl, "track": self.track}


@grouped
def finetune(
    ctx: typer.Context,
    folder: Folder,
    images: Images,
    training: TrainingOptions,
    teacher: Teacher,
    safety: Safety,
    run: Run,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Fine-tune a converted folder by distillation from the original. Needs no labels.

    Example:
        kdna finetune half --data kdna:digits/train --time 1m -o half-tuned
    """
    target, arguments = output_path(output, force), images.required | run.arguments
    arguments |= training.arguments | teacher.arguments | safety.arguments
    from ...api.finetune import finetune as stage
    from ...api.finetune import hold
    from ...api.nets import device_of_name
    from ...core.processes import process_group
    from ...core.specs import required
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.finetune import finetune_report

    require_free(target, force)
    with (
        process_group(device_of_name(run.device)) as first,
        _work(target, safety.resume, first) as work,
        reporting(run.quiet or not first) as progress,
    ):
        conversion = stage(folder, **arguments, work=work, progress=progress)
        if first:
            save_folder(conversion, target, ctx, force)
            tell_remarks([], required(conversion.report.finetune).skipped)
            show_json(to_plain(conversion.report)) if run.json else show(finetune_report(conversion))
            tell_written(conversion, target, run.quiet)
    if safety.max_drop is not None:
        hold(conversion, safety.max_drop)


@contextmanager
def _work(target: Path, resume: bool, leads: bool) -> Iterator[Path]:
    """The folder of a stopped run's state. Only the first process creates and clears it."""
    from ...network.folder.work import work_folder, work_place
    from ...stages.finetune.state import FILE

    work = work_place(target)
    try:
        if leads:
            with work_folder(target, [FILE], resume):
                yield work
        else:
            yield work
    except KeyboardInterrupt as stop:
        if leads:
            tell(RESUME.format(why=f"kdna: {stop}", work=work))
        raise
