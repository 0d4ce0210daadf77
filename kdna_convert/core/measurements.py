"""What is measured on a net: divergence, accuracy, a trade-off curve, the similarity of its layers. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer
from pydantic.dataclasses import dataclass

from .notebook import InNotebooks
from .specs import Layer, Shape, Totals

_STRICT = ConfigDict(extra="forbid")


class Measure(NamedTuple):
    """How a measure is called in a report, and its unit. A share, 0..1, is shown in percent."""

    title: str
    unit: Literal["%", "dB", ""]


# The measures of tasks. Higher is better, except for errors.
MEASURES = {
    "top1": Measure("top-1", "%"),
    "top5": Measure("top-5", "%"),
    "agreement": Measure("agreement", "%"),
    "accuracy": Measure("accuracy", "%"),
    "miou": Measure("mIoU", "%"),
    "pixel_accuracy": Measure("pixel accuracy", "%"),
    "map": Measure("mAP", "%"),
    "map50": Measure("mAP at IoU .5", "%"),
    "sequences": Measure("sequences", "%"),
    "token_error": Measure("token error", "%"),
    "psnr": Measure("PSNR", "dB"),
    "ssim": Measure("SSIM", ""),
    "cosine": Measure("cosine", ""),
    "mean_absolute_error": Measure("mean absolute error", ""),
    "metric": Measure("metric", ""),
}


def without_defaults(plain: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A serialized object without the keys that have these values: files of earlier versions have no such keys."""
    return {name: value for name, value in plain.items() if name not in defaults or value != defaults[name]}


@dataclass(frozen=True, config=_STRICT)
class Divergence:
    """How far a net is from the original, on the same images.

    Attributes:
        agreement: The share, 0..1, of images or pixels with the same answer, such as the top-1 class. None for a task
            without answers.
        kl: KL(original || net), in nats per image or pixel. None for a task without classes.
        logit_error: |z - z0|^2 / |z0|^2 of the outputs z of the net and z0 of the original.
        images: How many were measured.
        measures: Other measures of the net's task against the original, by their name in MEASURES.
        task: What the outputs mean, a key of TASKS.
    """

    agreement: float | None
    kl: float | None
    logit_error: float
    images: int
    measures: dict[str, float] = field(default_factory=dict)
    task: str = "classify"

    @model_serializer(mode="wrap")
    def _as_measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(handler(self), {"measures": {}, "task": "classify"})

    @property
    def distance(self) -> float:
        """The number that compares two nets: the KL divergence, or else the relative output error."""
        return self.logit_error if self.kl is None else self.kl


@dataclass(frozen=True, config=_STRICT)
class Evaluation:
    """Accuracy, divergence and size of a net. A value is None where it was not measured.

    Attributes:
        top1: The share of images, 0..1, whose best class is the label. None without labels.
        top5: The share of images, 0..1, whose best five classes include the label. None without labels.
        images: How many were measured.
        agreement: As in Divergence. None without the original.
        kl: As in Divergence. None without the original.
        params: Parameters.
        bytes: Size of the file, header included.
        macs: Multiply-adds per image of the net as it ran (folded).
        logit_error: As in Divergence. None without the original.
        skipped: The images that could not be read.
        task: What the outputs mean, a key of TASKS.
        measures: Other measures with labels, by their name in MEASURES.
        from_original: As `measures` of Divergence. Empty without the original.
    """

    top1: float | None
    top5: float | None
    images: int
    agreement: float | None
    kl: float | None
    params: int
    bytes: int
    macs: int
    logit_error: float | None = None
    skipped: tuple[str, ...] = ()
    task: str = "classify"
    measures: dict[str, float] = field(default_factory=dict)
    from_original: dict[str, float] = field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _as_measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(handler(self), {"measures": {}, "from_original": {}})


@dataclass(frozen=True, config=_STRICT)
class Point:
    """One budget of a trade-off curve.

    Attributes:
        share: The budget, as a share of the original's parameters.
        planned: The size of the plan.
        predicted: Its predicted error.
        measured: The divergence of a quick conversion by this plan, None where none was made.
    """

    share: float
    planned: Totals
    predicted: float
    measured: Divergence | None = None


@dataclass(frozen=True, config=_STRICT)
class Curve(InNotebooks):
    """A trade-off curve: points by decreasing share of the original's `params`.

    `correlation` is Spearman's rank correlation of the predicted errors and the measured KL divergences.
    """

    params: int
    points: tuple[Point, ...]
    correlation: float | None = None


@dataclass(frozen=True, config=_STRICT)
class ExpectedCost:
    """What a conversion is expected to take, within a factor of two or so.

    Attributes:
        seconds: The whole command.
        bytes: Memory at the peak.
        stages: Seconds by stage.
        cores: The cores that the expectation is for.
    """

    seconds: float
    bytes: float
    stages: dict[str, float]
    cores: int


Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, config=_STRICT)
class Group:
    """Layers that could share kernels, and their similarity.

    Attributes:
        key: The group's name.
        members: The names of the layers.
        similarities: A matrix for each metric, None where a value is undefined. [i][j] of `explained` is the share of
            layer j's output energy that the best basis of layer i explains.
        clusters: The number of each member's cluster. With `families.by: cluster` in a recipe each is a family.
        silhouette: How distinct the clusters are, -1 to 1; None where undefined.
        params: The parameters of all members.
    """

    key: str
    members: tuple[str, ...]
    similarities: dict[str, Matrix]
    clusters: tuple[int, ...]
    silhouette: float | None
    params: int


@dataclass(frozen=True, config=_STRICT)
class Analysis(InNotebooks):
    """The result of `analyze`.

    Attributes:
        layers: Every layer of the model.
        groups: The layers that could share kernels.
        alone: Layers that could be converted, but share with no other layer.
        metric: The similarity metric that formed the clusters.
        params: The parameters of the whole model.
        linkage: How the distance of two clusters followed from that of their members.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    alone: tuple[str, ...]
    metric: str
    params: int
    linkage: Literal["average", "complete", "single"] = "average"


@dataclass(frozen=True, config=_STRICT)
class ChainTimes:
    """The time of a layer as a chain of a scheme.

    Attributes:
        scheme: The scheme's name.
        size: The name of the scheme's size option.
        times: Nanoseconds on a batch, by size.
        macs: Multiply-adds per image, by size, as a share of the dense layer's.
        pays_to: The largest timed size that is faster than the dense layer; None if none is.
    """

    scheme: str
    size: str
    times: dict[int, int]
    macs: dict[int, float]
    pays_to: int | None


@dataclass(frozen=True, config=_STRICT)
class LayerTimes:
    """The times of layers of one shape, on inputs of one size.

    Attributes:
        layers: Their names.
        calls: How often they run, all together.
        shape: Of the kernel, (out, in / groups, *taps).
        stride: Of the layer.
        input: (batch, in, *sides) of the input; of linear layers (rows, in).
        dense: Nanoseconds of one call.
        int8: The same in 8 bits; None if the runtime has no such arithmetic.
        chains: One for each scheme that has a chain for the layer.
    """

    layers: tuple[str, ...]
    calls: int
    shape: Shape
    stride: Shape
    input: Shape
    dense: int
    int8: int | None
    chains: tuple[ChainTimes, ...]


@dataclass(frozen=True, config=_STRICT)
class Profile:
    """What `kdna profile` measured: nanoseconds of the net, and of its layers by shape. `timed` says by what."""

    timed: str
    batch: int
    net: int
    file: str
    rows: tuple[LayerTimes, ...]


@dataclass(frozen=True, config=_STRICT)
class LatencyReport:
    """Milliseconds of a batch of one, by the runtime that the plan was made for: original, as planned, as measured."""

    timed: str
    original: float
    planned: float
    measured: float
