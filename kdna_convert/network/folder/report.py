"""What report.json holds: how a conversion came about, and what each later stage did to it.

A `Report` is a frozen dataclass with an optional part for each verb; a stage adds its part with `dataclasses.replace`.
"""

from __future__ import annotations

import math
from dataclasses import field, fields, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer
from pydantic.dataclasses import dataclass

from ...core.measurements import Curve, Divergence, Evaluation, LatencyReport, without_defaults
from ...core.specs import Options

# A folder of another version may have keys that this one does not know: they are dropped.
_LENIENT = ConfigDict(extra="ignore", populate_by_name=True)


@dataclass(frozen=True, config=_LENIENT)
class FamilyFit:
    """How well one family was fitted: its relative output error by layer, the start that was chosen, seconds.

    `healed`: with a progressive fit, the distance from the original after the family was trained.
    """

    owner: str
    errors: dict[str, float]
    start: str | None
    seconds: float
    healed: float | None = None


@dataclass(frozen=True, config=_LENIENT)
class StepResult:
    """The result of one repair step: the divergence before and after it, and whether it was kept.

    `after` is None for a step that did nothing, or left a net without finite answers. `left_out` holds reason codes by
    layer; a code under "" is the whole step's. `judged` is the distance that decided, before and after.
    """

    step: str
    kept: bool
    before: Divergence
    after: Divergence | None
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)
    judged: tuple[float, float | None] = (math.nan, None)


@dataclass(frozen=True, config=_LENIENT)
class CalibrationReport:
    """How many images calibrated the conversion, and those that could not be read."""

    images: int = 0
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, config=_LENIENT)
class Trial:
    """A share of the parameters, and the points that were lost at it."""

    share: float
    drop: float


@dataclass(frozen=True, config=_LENIENT)
class MaxDropReport:
    """The search for the smallest net that loses at most `allowed` points. `by` is "top-1" or "agreement"."""

    allowed: float
    by: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, config=_LENIENT)
class Look:
    """A validation during a fine-tune: when, and the means of the training batches since the one before.

    `loss` and `agreement`, with the teacher, are those means; `lr` is the rate then, `heldout` the loss on the held-out
    images, None without them.
    """

    step: int
    seconds: float
    loss: float
    agreement: float
    lr: float
    heldout: float | None = None


@dataclass(frozen=True, config=_LENIENT)
class FinetuneReport:
    """The result of a fine-tune. `trained` of `params` parameters were free to change.

    `losses` are means between two looks at the held-out images. `before` and `after` are measured on these images,
    None without them; the tensors that did best there are kept, and `kept` is False where that was the start. `lr` is
    the peak rate. `falls` counts losses that were not finite; `ended` is "length" or "plateau". `settings` are those of
    stages.finetune.Settings, `teacher` the net whose answers were learned, None for the original, `teacher_metric` its
    value of the user's metric. `looks` are the validations, in order.
    """

    steps: int
    trained: int
    params: int
    losses: tuple[float, ...]
    before: Divergence | None
    after: Divergence | None
    kept: bool
    seconds: float = 0.0
    images_per_second: float = 0.0
    falls: int = 0
    ended: str = "length"
    lr: float = 0.0
    settings: Options = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    teacher: str | None = None
    teacher_metric: float | None = None
    looks: tuple[Look, ...] = ()

    @model_serializer(mode="wrap")
    def _as_measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(handler(self), {"teacher_metric": None, "looks": ()})


@dataclass(frozen=True, config=_LENIENT)
class CodeReport:
    """The coded file. `target` is its limit in bytes, None where the codec has one size.

    Of the entropy coder alone: `towards`, the net whose outputs the coded net approximates, and `step`, the search's
    quantization step.
    """

    codec: str
    bytes: int
    target: int | None
    towards: str | None = None
    step: float | None = None
    seconds: float = 0.0

    @model_serializer(mode="wrap")
    def _without_search(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), ("towards", "step") if self.towards is None else ())


@dataclass(frozen=True, config=_LENIENT)
class ShrinkReport:
    """A cut `before` -> `params` parameters, fitted on so many `images`. `before` is the key "from" in the file."""

    before: Annotated[int, Field(alias="from")]
    images: int
    skipped: tuple[str, ...] = ()
    repair: tuple[StepResult, ...] = ()
    notes: tuple[str, ...] = ()
    params: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, config=_LENIENT)
class FreezeReport:
    """How far the frozen net is from the routed one, and either from the original, on held-out images.

    A divergence is None where no image was held out, or the original's weights are not available.
    """

    from_routed: Divergence | None
    from_original: Divergence | None
    routed_from_original: Divergence | None
    images: int
    seconds: float


@dataclass(frozen=True, config=_LENIENT)
class StageSummary:
    """One stage of `kdna run`.

    `agreement`, `kl` (nats), `logit_error` and `from_original` are measured on `images` that the stage held out, `top1`
    and `measures` on the images of `eval_data`; None where they were not measured. `done_before`: an earlier call did
    this stage.
    """

    stage: str
    params: int
    bytes: int
    agreement: float | None = None
    kl: float | None = None
    images: int | None = None
    top1: float | None = None
    seconds: float = 0.0
    done_before: bool = False
    logit_error: float | None = None
    from_original: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _as_measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(handler(self), {"logit_error": None, "from_original": {}, "measures": {}})


@dataclass(frozen=True, config=_LENIENT)
class RunReport:
    """The stages of `kdna run`. `mark` is the hash of everything that the result depends on.

    `shares` says whether the recipe's `sharing` was used, None where it has none. `original` and `evaluation` (of the
    last stage) are measured on `eval_data`. `was_there`: an earlier call wrote the folder, and this one only read it.
    `exported` is the place of the recipe's export.
    """

    mark: str
    shares: bool | None = None
    stages: tuple[StageSummary, ...] = ()
    eval_data: str | None = None
    original: Evaluation | None = None
    evaluation: Evaluation | None = None
    was_there: bool = False
    exported: str | None = None

    @model_serializer(mode="wrap")
    def _as_measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = [] if self.original else ["eval_data", "original", "evaluation"]
        absent += [name for name in ("was_there", "exported") if not getattr(self, name)]
        return _without(handler(self), tuple(absent))


@dataclass(frozen=True, config=_LENIENT)
class Report:
    """How a conversion came about. `stages` has the divergence from the original after each stage, `divergence` the
    last of them, None where it was not measured. `seconds` are by stage; `command` has a line for each command.

    `curve` has what was expected at other shares of the parameters, None where no plan was made from predicted errors.
    `families` and `repair` are None after a shrink, which fits the families again. `order` is the order of the keys in
    the file: a part that is added comes last.
    """

    stages: dict[str, Divergence] = field(default_factory=dict)
    divergence: Divergence | None = None
    families: tuple[FamilyFit, ...] | None = ()
    repair: tuple[StepResult, ...] | None = ()
    calibration: CalibrationReport = CalibrationReport()
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    max_drop: MaxDropReport | None = None
    code: CodeReport | None = None
    finetune: FinetuneReport | None = None
    shrink: ShrinkReport | None = None
    freeze: FreezeReport | None = None
    run: RunReport | None = None
    command: str | None = None
    latency: LatencyReport | None = None
    curve: Curve | None = None
    order: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        named = [each.name for each in fields(self) if each.name != "order"]
        present = [name for name in named if name == "divergence" or getattr(self, name) is not None]
        ordered = [name for name in self.order if name in present]
        object.__setattr__(self, "order", (*ordered, *(name for name in present if name not in ordered)))

    def with_stage(self, name: str, divergence: Divergence | None) -> Report:
        """The report after a stage; where that was not measured, the divergence last known stays."""
        if divergence is None:
            return replace(self, divergence=self.stages.get(name, self.divergence))
        return replace(self, stages={**self.stages, name: divergence}, divergence=divergence)

    def with_command(self, command: str) -> Report:
        """The report with a command added to those that made the folder."""
        return replace(self, command=command if self.command is None else f"{self.command}\n{command}")


def to_plain(report: Report) -> dict[str, Any]:
    """The report as JSON has it: its parts in their order, absent parts left out."""
    plain = TypeAdapter(Report).dump_python(report, by_alias=True)
    return {name: plain[name] for name in report.order}


def from_plain(plain: dict[str, Any]) -> Report:
    """The inverse of to_plain; missing parts have their defaults. Raises pydantic.ValidationError."""
    return TypeAdapter(Report).validate_python({"families": None, "repair": None, **plain, "order": tuple(plain)})


def _without(plain: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name not in names}
