"""`kdna finetune`: a converted folder trained towards its original, in one process or under `accelerate launch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ...core.errors import RecipeError
from .console import output_path, reporting, save_folder, show, show_json, tell, tell_remarks
from .options import Folder, Force, Images, OutputFolder, Run, grouped

Part = Literal["norms", "codes", "adapters", "shared", "all"]
Precision = Literal["fp32", "bf16", "fp16"]
RESUME = "{why}; what was done is in {work}: the same command with --resume goes on from there"


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
class Training:
    """How to train; the fields of finetune.Settings."""

    train: Annotated[Part, _option("Train", "What may change; norms and biases always may.")] = "adapters"
    time: Annotated[str | None, _option("Train", "How long, as 90s, 10m or 1.5h.")] = None
    epochs: Annotated[float | None, _option("Train", "Passes over the images. Default: 5.", min=0.0)] = None
    steps: Annotated[int | None, _option("Train", "Steps of --batch-size images.", min=1)] = None
    batch_size: Annotated[int, _option("Train", "Images a step, all processes together.", min=1)] = 128
    accumulate: Annotated[int, _option("Train", "Take a step's images in so many parts.", min=1)] = 1
    lr: Annotated[float | None, _option("Train", "Peak rate, relative to each tensor's size. Default: found.")] = None
    shared_lr: Annotated[
        float | None, _option("Train", "That of shared tensors; of codes, in integers. Default: --lr, 0.01.")
    ] = None
    opt: Annotated[str, _option("Train", "Optimiser, by timm's name.")] = "adamw"
    clip: Annotated[float | None, _option("Train", "Clip the gradient's norm to this.")] = None
    temperature: Annotated[float, _option("Train", "Of the distillation.")] = 2.0
    label_weight: Annotated[float, _option("Train", "Weight of the labels' cross-entropy.", min=0.0)] = 0.0
    feature_weight: Annotated[float, _option("Train", "Weight of matching the stages' outputs.", min=0.0)] = 0.0
    orthogonality: Annotated[
        float, _option("Train", "Weight of keeping the rows of what is shared orthogonal.", min=0.0)
    ] = 0.0
    subnets: Annotated[float, _option("Train", "Weight of what stages answer on their own.", min=0.0)] = 0.0
    sampled: Annotated[bool, _option("Train", "Half of the steps at smaller sizes; nested folders.", "--sampled")] = (
        False
    )
    ema: Annotated[float, _option("Train", "Decay of a moving average, kept in place of the last step.", min=0.0)] = 0.0
    augment: Annotated[bool, _option("Train", "Random crops and mirror images, of folders.")] = True
    mixup: Annotated[float, _option("Train", "Mix images in pairs, by Beta(alpha, alpha).", min=0.0)] = 0.0
    precision: Annotated[Precision, _option("Train", "bf16 or fp16 are faster where the hardware has them.")] = "fp32"
    seed: Annotated[int, _option("Train", "Seed of the images' order and views.", min=0)] = 0

    @property
    def arguments(self) -> dict[str, Any]:
        said = {name: value for name, value in vars(self).items() if name not in ("time", "clip")}
        clip = {} if self.clip is None else {"clip": self.clip}
        return {**said, **clip, "seconds": _length(self.time)}


@dataclass(frozen=True)
class Teacher:
    """Whose answers are learned, where they are not the original's."""

    teacher: Annotated[
        str | None, _option("Train", "Learn from this net instead of the original.", metavar="MODEL")
    ] = None
    teacher_checkpoint: Annotated[str | None, _option("Train", "The teacher's weights.")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"teacher": self.teacher, "teacher_checkpoint": self.teacher_checkpoint}


@dataclass(frozen=True)
class Safety:
    """What is written on the way, and when to stop."""

    save_every: Annotated[int, _option("Safety", "Write the state and look at held-back images.", min=1)] = 100
    resume: Annotated[bool, _option("Safety", "Go on from what a stopped run left.", "--resume")] = False
    max_drop: Annotated[
        float | None, _option("Safety", "Exit 3 if more of 100 answers than this changed.", min=0.0)
    ] = None
    patience: Annotated[int | None, _option("Safety", "End after so many looks without a gain.", min=1)] = None
    jsonl: Annotated[Path | None, _option("Safety", "A line of JSON a step, here.")] = None
    track: Annotated[Path | None, _option("Safety", "Folder for TensorBoard.")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        if self.track is not None and find_spec("tensorboard") is None:
            raise typer.BadParameter("needs tensorboard: pip install tensorboard", param_hint="--track")
        given = {"save_every": self.save_every, "resume": self.resume, "patience": self.patience}
        return {**given, "log": self.jsonl, "track": self.track}


@grouped
def finetune(
    ctx: typer.Context,
    folder: Folder,
    images: Images,
    training: Training,
    teacher: Teacher,
    safety: Safety,
    run: Run,
    output: OutputFolder = None,
    force: Force = False,
) -> None:
    """Train the adapters of a converted folder towards the original's answers; labels are not needed."""
    target, arguments = output_path(output, force), images.required | run.arguments
    arguments |= training.arguments | teacher.arguments | safety.arguments
    from ...api.finetune import finetune as stage
    from ...api.finetune import hold
    from ...api.job import device_of_name
    from ...core.processes import together
    from ...core.specs import required
    from ...network.folder import require_free
    from ...network.folder.report import to_plain
    from ..report.finetune import finetune_report

    require_free(target, force)
    with (
        together(device_of_name(run.device)) as first,
        _work(target, safety.resume, first) as work,
        reporting(run.quiet or not first) as progress,
    ):
        conversion = stage(folder, **arguments, work=work, progress=progress)
        if first:
            save_folder(conversion, target, ctx, force)
            tell_remarks([], required(conversion.report.finetune).skipped)
            show_json(to_plain(conversion.report)) if run.json else show(finetune_report(conversion))
            tell(f"written to {target}", run.quiet)
    if safety.max_drop is not None:
        hold(conversion, safety.max_drop)


@contextmanager
def _work(target: Path, resume: bool, leads: bool) -> Iterator[Path]:
    """Where a stopped run leaves what it can be gone on from; only the first process clears it."""
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
