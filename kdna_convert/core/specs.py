"""The data that stages exchange: plain values without behavior. Importing this file does not import torch.

Each is a frozen pydantic dataclass, so that an edited JSON file is validated field by field when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")

# How a long stage reports: (stage, or "stage: detail"; how many are done; of how many, 0 where unknown).
Progress = Callable[[str, int, int], None]
Options = dict[str, Any]
Shape = tuple[int, ...]
# A shape in which the name of an option may stand for its value: ("rank", 64).
SymbolicShape = tuple[int | str, ...]


@dataclass(frozen=True, config=_STRICT)
class ModelRef:
    """The source of a model, enough to build it again.

    Attributes:
        name: The MODEL as given, such as resnet18 or nets.py:factory.
        checkpoint: The file with its weights, None for those of its source.
        sha256: Of its tensors, by sorted names.
    """

    name: str
    checkpoint: str | None = None
    sha256: str = ""


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """How images become inputs, in timm's terms.

    Attributes:
        input_size: (channels, height, width) of one input.
        mean: Subtracted per channel, for pixels in 0..1.
        std: Divided by per channel.
        interpolation: nearest, bilinear, bicubic, box, hamming or lanczos.
        crop_pct: The share of the resized image's side that the crop keeps.
        crop_mode: The place of the crop, as timm names it.
    """

    input_size: Shape = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"


@dataclass(frozen=True, config=_STRICT)
class Layer:
    """A layer of the model. `shape` is the kernel's, (out, in / groups, *taps); positions are per image."""

    name: str
    kind: str  # the module's class name, e.g. Conv2d, Conv2dSame, Linear
    shape: Shape
    groups: int = 1
    stride: Shape = ()
    dilation: Shape = ()
    in_positions: int = 0
    out_positions: int = 0
    reason: str | None = None  # a KD1xx code when the layer cannot be converted

    @property
    def out_channels(self) -> int:
        return self.shape[0]

    @property
    def in_channels(self) -> int:
        """Input channels that one output channel sees: in / groups."""
        return self.shape[1]

    @property
    def input_channels(self) -> int:
        """Channels of the input, all groups together."""
        return self.shape[1] * self.groups

    @property
    def taps(self) -> int:
        return product(self.shape[2:])

    @property
    def patch(self) -> int:
        """n: the length of an unfolded input patch, in / groups x taps."""
        return self.in_channels * self.taps

    @property
    def params(self) -> int:
        return product(self.shape)

    @property
    def macs(self) -> int:
        """Multiply-adds per image, dense."""
        return self.params * (self.in_positions if self.kind.startswith("ConvTranspose") else self.out_positions)


@dataclass(frozen=True, config=_STRICT)
class TensorSpec:
    """A stored tensor: its name in the file, its shape and its safetensors dtype (F32, F16, I64 ...)."""

    name: str
    shape: Shape
    dtype: str = "F32"


@dataclass(frozen=True, config=_STRICT)
class Layout:
    """The tensors that a scheme stores for a family: the shared ones, and the adapters in the order of the members.

    `indices` names the tensors of int16 indices, which are neither rounded nor trained.
    """

    shared: dict[str, SymbolicShape]
    adapters: tuple[dict[str, SymbolicShape], ...]
    indices: tuple[str, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class Family:
    """Layers that share tensors. The first member owns the shared tensors. `options` are the fields of the scheme."""

    scheme: str
    members: tuple[str, ...]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Route:
    """Layers whose routers may share tensors, which the first member then owns. `options` are the routing's fields.

    Independent of families: a layer may be converted, routed or both. `layers` describes the members, since a routing
    may also be at modules that are in no list of layers.
    """

    routing: str
    layers: tuple[Layer, ...]
    options: Options = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)


@dataclass(frozen=True, config=_STRICT)
class Totals:
    """The size of a net: parameters, bytes of its file (header included), multiply-adds of one image.

    `macs` counts converted layers as run factored where that is cheaper. A folded net has the MACs of the original.
    """

    params: int
    bytes: int
    macs: int


@dataclass(frozen=True, config=_STRICT)
class Plan:
    """What every layer becomes, with the exact size of the result.

    Attributes:
        model: The original.
        families: The layers that share tensors, and how.
        layers: Every layer of the model, converted or not.
        original: The size of the original.
        planned: The size of the result.
        predicted: By a family's first member: its predicted error, in the units of Choice.points.
        stored: By a family's first member: the parameters that the family stores.
        nested: By a family's first member, where its directions are ordered by importance: the error with the first 1,
            2, ... of them, in the same units. `kdna shrink` cuts the family by it.
        routes: The layers with routers, and their routings.
        routed: The parameters that the routers add.
        unrouted: By layer: the KD1xx code of why the routing of the recipe skips it.
        seed: Of everything drawn at random.
        version: Of this format.
    """

    model: ModelRef
    families: tuple[Family, ...]
    layers: tuple[Layer, ...]
    original: Totals
    planned: Totals
    predicted: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    nested: dict[str, tuple[float, ...]] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    routed: int = 0
    unrouted: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    version: int = 1


@dataclass(frozen=True, config=_STRICT)
class MemberMacs:
    """Multiply-adds per image of one layer: each * size + squared * size^2 run factored, `dense` run dense.

    Above the size `factored_up_to`, dense costs less.
    """

    dense: int
    each: int = 0
    squared: int = 0
    factored_up_to: int = -1  # never


@dataclass(frozen=True, config=_STRICT)
class Choice:
    """What a plan may choose for one family: a value of the scheme's size option, or to stay dense.

    Attributes:
        family: The family without the size option.
        size: The name of the size option.
        smallest: The smallest size.
        limit: The largest size.
        layout: The tensors that the family stores.
        macs: The multiply-adds of each member.
        dtype: Of the stored tensors, as safetensors names it.
        points: By size: the predicted error, which is the weighted output error of a quick fit.
        fixed: The size that the recipe sets, None where it sets none.
        dense: Whether the family may stay dense, where the recipe sets no size.
    """

    family: Family
    size: str
    smallest: int
    limit: int
    layout: Layout
    macs: tuple[MemberMacs, ...]
    dtype: str = "F32"
    points: dict[int, float] = field(default_factory=dict)
    fixed: int | None = None
    dense: bool = True


@dataclass(frozen=True, config=_STRICT)
class Database:
    """Everything that a plan is solved from, for any budget and without the model.

    Attributes:
        fingerprint: A hash of everything that the database depends on.
        parts: The hashes of the model, recipe, data and settings; none in files of earlier versions.
        model: The original.
        layers: Every layer of the model.
        tensors: Those of the original file.
        params: Of the original net. Its buffers are in `tensors` only.
        macs: Of the original net, per image.
        metadata: Of the converted file.
        choices: The families and what a plan may choose for each.
        routes: The routings, equal for every budget.
        unrouted: As in Plan.
        gates: The tensors of the routers.
        gate_params: The parameters that the routers add.
        gate_macs: The multiply-adds per image that the routers add.
        seed: Of everything drawn at random.
        version: Of this format.
    """

    fingerprint: str
    model: ModelRef
    layers: tuple[Layer, ...]
    tensors: tuple[TensorSpec, ...]
    params: int
    macs: int
    metadata: dict[str, str]
    choices: tuple[Choice, ...]
    routes: tuple[Route, ...] = ()
    unrouted: dict[str, str] = field(default_factory=dict)
    gates: tuple[TensorSpec, ...] = ()
    gate_params: int = 0
    gate_macs: int = 0
    seed: int = 0
    version: int = 1
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Divergence:
    """How far a net is from the original, on the same images.

    Attributes:
        agreement: The share of images, 0..1, with the same top-1 class.
        kl: KL(original || net), in nats per image.
        logit_error: |z - z0|^2 / |z0|^2 of the logits z of the net and z0 of the original.
        images: How many were measured.
    """

    agreement: float
    kl: float
    logit_error: float
    images: int


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
class Curve:
    """A trade-off curve: points by decreasing share of the original's `params`.

    `correlation` is Spearman's rank correlation of the predicted errors and the measured KL divergences.
    """

    params: int
    points: tuple[Point, ...]
    correlation: float | None = None


Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, config=_STRICT)
class Group:
    """Layers that could share kernels, and their similarity.

    Attributes:
        key: The group's name.
        members: The names of the layers.
        similarities: A matrix for each metric, None where a value is undefined. [i][j] of `explained` is the share of
            layer j's output energy that the best basis of layer i explains.
        families: The number of each member's family.
        silhouette: How distinct the families are, -1 to 1; None where undefined.
        params: The parameters of all members.
    """

    key: str
    members: tuple[str, ...]
    similarities: dict[str, Matrix]
    families: tuple[int, ...]
    silhouette: float | None
    params: int


@dataclass(frozen=True, config=_STRICT)
class Analysis:
    """The result of `analyze`.

    Attributes:
        layers: Every layer of the model.
        groups: The layers that could share kernels.
        alone: Layers that could be converted, but share with no other layer.
        metric: The similarity metric that formed the families.
        params: The parameters of the whole model.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    alone: tuple[str, ...]
    metric: str
    params: int


def to_json(value: Any) -> str:
    """Any dataclass of this file as indented JSON."""
    return TypeAdapter(type(value)).dump_json(value, indent=2).decode() + "\n"


def from_json(kind: type[T], text: str | bytes) -> T:
    """The inverse of to_json. Raises pydantic.ValidationError; callers name the file in their own error."""
    return TypeAdapter(kind).validate_json(text)


def required(part: T | None) -> T:
    """A part that cannot be None here, such as a part that was just added to a report. Raises ValueError."""
    if part is None:
        raise ValueError("a required part is None")
    return part


def product(numbers: Shape) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
