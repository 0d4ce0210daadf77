"""The keywords of the public verbs in addition to their arguments, as typed dictionaries (PEP 692)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from torch import nn

from ..core.plugin_names import ArithmeticName
from ..core.specs import Plan
from ..inputs.boards import Board
from ..inputs.data import Data
from ..inputs.finetune_settings import Part, Precision
from ..inputs.recipe import Recipe, parse_count, parse_latency, parse_target


class TaskOptions(TypedDict, total=False):
    """What the outputs of the net mean.

    `task` is a name in TASKS; by default it is the recipe's, or chosen from what the net returns. `outputs` picks the
    tensors to compare from what the net returns: a function, or its name `file.py:function`, whose code is run. It is
    not recorded.
    """

    task: str | None
    outputs: str | Callable[[Any], Any] | None


class MetricOptions(TypedDict, total=False):
    """`metric(net, batches)` returns a number, higher for better nets: a function, or its name `file.py:function`."""

    metric: str | Callable[[nn.Module, Any], float] | None


class FolderOptions(TypedDict, total=False):
    """How the net of a folder is built.

    `trust_code` runs the code that the folder names: needed for a folder from elsewhere whose net is not one that timm,
    torchvision or kdna lists. `model` replaces that code: a module of the original's architecture, which is not
    changed; with the original's weights it is also the original.
    """

    model: nn.Module | None
    trust_code: bool


class ExportKeywords(FolderOptions, total=False):
    """The same, and what an export form is asked for: see ExportOptions in stages/export/export.py."""

    opset: int | None
    dynamic: tuple[str, ...]
    fp16: bool
    normalize: bool
    input_names: tuple[str, ...]
    factored: bool | None
    min_agreement: float | None


class StageOptions(FolderOptions, TaskOptions, total=False):
    """The same, and how images are read and where the net runs."""

    class_map: str | Path | None
    device: str


class NetOptions(TaskOptions, total=False):
    """How the net and its images are read, and where it runs. `trust_code` is that of FolderOptions."""

    trust_code: bool
    checkpoint: str | None
    checkpoint_key: str | None
    checkpoint_prefix: str | None
    inputs: Mapping[str, Any] | None
    class_map: str | Path | None
    device: str | None


class BankOptions(NetOptions, total=False):
    """The same, and `shared`: a converted folder, or a Conversion, whose plan and shared tensors are used."""

    shared: Any


class JobOptions(NetOptions, total=False):
    """The same, and how the moments are collected."""

    data_free: bool
    moments: str | Path | None


class CurveOptions(JobOptions, MetricOptions, total=False):
    """The same, and the file of predicted errors."""

    database: str | Path | None


class LatencyOptions(TypedDict, total=False):
    """What times a net for `target_latency`.

    `runtime` is a key of RUNTIMES; `threads` are those of the CPU, by default torch's; `profile` is the file of times,
    by default one in the user's cache; `other_machine` takes a file that was measured elsewhere.
    """

    target_latency: float | str | None
    runtime: str
    threads: int | None
    profile: str | Path | None
    other_machine: bool


class ExploreOptions(CurveOptions, LatencyOptions, total=False):
    """What a database is made from, and what times the layers where that is asked for."""


class BoardOptions(TypedDict, total=False):
    """The limits of a device for a plan.

    `board` is a profile, its name or its file; `arithmetic` is int8 or fp32. `max_flash` and `max_peak_memory` are
    sizes in bytes or as "320kB", by default those of the board; `max_latency` is the time of one image, "12ms", or a
    share of the original's.
    """

    board: Board | str | Path | None
    arithmetic: ArithmeticName
    max_flash: int | str | None
    max_peak_memory: int | str | None
    max_latency: float | str | None


class PlanLimits(LatencyOptions, BoardOptions, total=False):
    """A target latency and the limits of a device."""


class PlanOptions(CurveOptions, PlanLimits, total=False):
    """The same, and what takes the place of a budget."""

    plan: Plan | str | Path | None
    max_drop: float | None


class ConvertOptions(PlanOptions, total=False):
    """The same, and where a stopped conversion leaves its progress."""

    work: str | Path | None


class ReportOptions(NetOptions, total=False):
    """The same, and `model` as in FolderOptions."""

    model: nn.Module | None


class EvaluateOptions(ReportOptions, MetricOptions, total=False):
    """The same, and a metric."""


class BenchOptions(FolderOptions, total=False):
    """How the net of a folder is built, its weights and input, and where it runs."""

    checkpoint: str | None
    checkpoint_key: str | None
    checkpoint_prefix: str | None
    inputs: Mapping[str, Any] | None
    device: str


class ProfileOptions(TypedDict, total=False):
    """The weights of the net, and its input."""

    checkpoint: str | None
    checkpoint_key: str | None
    checkpoint_prefix: str | None
    inputs: Mapping[str, Any] | None


class FinetuneOptions(FolderOptions, TaskOptions, MetricOptions, total=False):
    """How the net is built, the settings of a fine-tune (inputs/finetune_settings.py), and its state and log."""

    train: Part
    epochs: float | None
    steps: int | None
    seconds: float | None
    batch_size: int
    accumulate: int
    lr: float | None
    shared_lr: float | None
    opt: str
    clip: float | None
    temperature: float
    label_weight: float
    feature_weight: float
    orthogonality: float
    subnets: float
    sampled: bool
    ema: float
    augment: bool
    mixup: float
    precision: Precision
    save_every: int
    patience: int | None
    seed: int
    teacher_checkpoint: str | None
    work: Path | None
    resume: bool
    log: Path | None
    track: Path | None


class RunOptions(NetOptions, MetricOptions, PlanLimits, total=False):
    """How the net is read, what limits its plan, what the result is measured on, and where it is written.

    `moments` and `database` are files, or folders of such files, that the conversion reads where they exist and else
    writes.
    """

    moments: str | Path | None
    database: str | Path | None
    eval_data: Data | str | Path | None
    force: bool
    command: str | None


class CompareOptions(TaskOptions, MetricOptions, total=False):
    """The recipes of kdna's rows, how the net and its images are read, and limits."""

    recipe: Recipe | str
    bytes_recipe: Recipe | str
    checkpoint: str | None
    checkpoint_key: str | None
    checkpoint_prefix: str | None
    inputs: Mapping[str, Any] | None
    class_map: str | Path | None
    limit: int | None
    time_limit: float


class Targets(NamedTuple):
    """The budgets of a call: shares of parameters, multiply-adds and time, and the size of the file; one at most."""

    params: float | str | None = None
    bytes: float | str | None = None
    macs: float | str | None = None
    latency: float | str | None = None

    def check(self) -> None:
        """Raise PlanError KD506 for an invalid size before the calibration, which takes minutes."""
        parsers = (parse_count, parse_target, parse_count, parse_latency)
        for parse, target in zip(parsers, self, strict=True):
            if target is not None:
                parse(target, 1)


def check_keywords(verb: str, given: Mapping[str, Any], options: type) -> None:
    """Raise TypeError, as Python does, for a keyword that the typed dictionary `options` does not have."""
    for name in given:
        if name not in options.__annotations__:
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}")
