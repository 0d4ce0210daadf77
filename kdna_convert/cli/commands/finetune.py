"""`kdna finetune`: distillation of the original into a converted folder, also under `accelerate launch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ...core.errors import RecipeError
from ...inputs.finetune_settings import Settings, about, default_of, kind_of
from .console import (
    copy_report,
    output_path,
    reporting,
    resumable,
    save_folder,
    show,
    show_json,
    tell_remarks,
    tell_written,
)
from .grouped import grouped
from .options import METRIC, Folder, Force, HtmlFlag, ImagesFlags, OutputFolder, RunFlags, TrustFlags

T = TypeVar("T")
# In the order of the help: a length as a time comes before the others.
SETTINGS = ["train", "seconds", *(each.name for each in fields(Settings) if each.name not in ("train", "seconds"))]


def _option(panel: str, help: str, *flags: str, **limits: Any) -> Any:  # noqa: A002 - typer's name for it
    return typer.Option(*flags, help=help, rich_help_panel=panel, **limits)


def settings_group(panel: str) -> Callable[[type[T]], type[T]]:
    """A decorator that makes a class a group of options: the settings of that panel, then its own."""

    def group(own: type[T]) -> type[T]:
        annotations, defaults = {}, {}
        for setting in SETTINGS:
            told = about(setting)
            if told.panel != panel:
                continue
            name = "time" if setting == "seconds" else setting
            kind: Any = str if setting == "seconds" else kind_of(setting)
            least = told.limits.above if told.limits.least is None else told.limits.least
            limit = {} if least is None or kind is str else {"min": least}
            flags = (f"--{name}",) if kind is bool and not default_of(setting) else ()
            option = _option(panel, told.help, *flags, metavar=told.metavar, **limit)
            annotations[name] = Annotated[kind | None if default_of(setting) is None else kind, option]
            defaults[name] = default_of(setting)
        own.__annotations__ = annotations | get_annotations(own)
        for name, default in defaults.items():
            setattr(own, name, default)
        return dataclass(frozen=True)(own)

    return group


def _length(text: str | None) -> float | None:
    """`10m`, `90s`, `1.5h` in seconds."""
    if text is None:
        return None
    from ...inputs.recipe import parse_time

    try:
        return parse_time(text)
    except RecipeError as error:
        raise typer.BadParameter(error.message, param_hint="--time") from None


@settings_group("Train")
class TrainingOptions:
    """How to train."""

    @property
    def arguments(self) -> dict[str, Any]:
        options = {name: value for name, value in vars(self).items() if name != "time"}
        return {**options, "seconds": _length(vars(self)["time"])}


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


@settings_group("Safety")
class Safety:
    """What is saved during training, and when it ends early."""

    resume: Annotated[bool, _option("Safety", "Resume a stopped run with the same arguments.", "--resume")] = False
    max_drop: Annotated[
        float | None,
        _option("Safety", "Exit with 3 if more than X % of the answers change.", metavar="X", min=0.0),
    ] = None
    metric: Annotated[
        str | None,
        _option("Safety", f"{METRIC}. --max-drop counts it.", metavar="FUNCTION"),
    ] = None
    jsonl: Annotated[Path | None, _option("Safety", "Log one line of JSON per step.", metavar="FILE")] = None
    track: Annotated[Path | None, _option("Safety", "Log to this TensorBoard folder.", metavar="FOLDER")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        if self.track is not None and find_spec("tensorboard") is None:
            raise typer.BadParameter("requires tensorboard: pip install tensorboard", param_hint="--track")
        options = {name: value for name, value in vars(self).items() if name not in ("max_drop", "jsonl")}
        return {**options, "log": self.jsonl}


@grouped
def finetune(
    ctx: typer.Context,
    folder: Folder,
    images: ImagesFlags,
    training: TrainingOptions,
    teacher: Teacher,
    safety: Safety,
    run: RunFlags,
    trust: TrustFlags,
    output: OutputFolder = None,
    html: HtmlFlag = None,
    force: Force = False,
) -> None:
    """Fine-tune a converted folder by distillation from the original. Needs no labels.

    Example:
        kdna finetune half --data kdna:digits/train --time 1m -o half-tuned
    """
    target, arguments = output_path(output, force), images.required | run.arguments
    page = html and output_path(html, force)
    if teacher.teacher is None and teacher.teacher_checkpoint is not None:
        raise typer.BadParameter("requires --teacher", param_hint="--teacher-checkpoint")
    arguments |= training.arguments | teacher.arguments | safety.arguments | trust.arguments
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
        _work(target, safety.resume, run.quiet, first) as work,
        reporting(run.quiet or not first) as progress,
    ):
        conversion = stage(folder, **arguments, work=work, progress=progress)
        if first:
            save_folder(conversion, target, ctx, force)
            tell_remarks([], required(conversion.report.finetune).skipped)
            show_json(to_plain(conversion.report)) if run.json else show(finetune_report(conversion))
            tell_written(conversion, target, run.quiet)
            if page:
                copy_report(target, page, run.quiet)
    if safety.max_drop is not None:
        hold(conversion, safety.max_drop)


@contextmanager
def _work(target: Path, resume: bool, quiet: bool, leads: bool) -> Iterator[Path]:
    """The folder of a stopped run's state. Only the first process creates and clears it."""
    from ...network.folder.work import work_place
    from ...stages.finetune.training_state import FILE

    if not leads:
        yield work_place(target)
        return
    with resumable(target, [FILE], resume, quiet) as work:
        yield work
