"""The data that stages exchange: plain values without behavior. Importing this file does not import torch.

Each is a frozen pydantic dataclass, so that an edited JSON file is validated field by field when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar

from pydantic import ConfigDict, SerializerFunctionWrapHandler, TypeAdapter, model_serializer
from pydantic.dataclasses import dataclass

from .notebook import InNotebooks

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")

# How a long stage reports: (stage, or "stage: detail"; how many are done; of how many, 0 where unknown).
Progress = Callable[[str, int, int], None]
Options = dict[str, Any]
Shape = tuple[int, ...]
# A shape in which the name of an option may stand for its value: ("rank", 64).
SymbolicShape = tuple[int | str, ...]
# Of sounds, in Hz. Telephones have 8,000; the fastest converters have 768,000.
SAMPLE_RATES = range(1000, 768_001)


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
    """How images or sounds become inputs, in timm's terms.

    Attributes:
        input_size: (channels, height, width) of one input. Of sounds: (channels, samples), or with an axis of 1.
        mean: Subtracted per channel, for pixels in 0..1 and samples in -1..1.
        std: Divided by per channel.
        interpolation: nearest, bilinear, bicubic, box, hamming or lanczos.
        crop_pct: The share of the resized image's side that the crop keeps.
        crop_mode: The place of the crop, as timm names it.
        sample_rate: Of sounds, in Hz. In the file it is left out where it is None.
    """

    input_size: Shape = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    sample_rate: int | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if key != "sample_rate" or value is not None}


@dataclass(frozen=True, config=_STRICT)
class Layer:
    """A layer of the model. `shape` is the kernel's, (out, in / groups, *taps); positions are per image.

    `standardized` is (eps, bound) of a layer that standardizes its weight (core/standardize.py). In the file it is left
    out where it is None, as it is in files written before it was known.
    """

    name: str
    kind: str  # the module's class name, e.g. Conv2d, Conv2dSame, Linear
    shape: Shape
    groups: int = 1
    stride: Shape = ()
    dilation: Shape = ()
    in_positions: int = 0
    out_positions: int = 0
    reason: str | None = None  # a KD1xx code when the layer cannot be converted
    standardized: tuple[float, float] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if key != "standardized" or value is not None}

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
    `latency` is in nanoseconds per batch, factored where that is faster; left out of the file where it is None.
    """

    params: int
    bytes: int
    macs: int
    latency: int | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if value is not None}


@dataclass(frozen=True, config=_STRICT)
class LimitUse:
    """What a plan takes of a device, estimated.

    Attributes:
        name: flash, peak memory or latency.
        used: Bytes, or nanoseconds for one image.
        original: Those of the original.
        allowed: The limit, None without one.
        at: Of the peak memory: the layer or operation that needs it.
    """

    name: str
    used: int
    original: int
    allowed: int | None = None
    at: str | None = None


@dataclass(frozen=True, config=_STRICT)
class BoardUse:
    """The estimates of a plan on a device: its name, None where only limits were given; int8 or fp32; the limits."""

    board: str | None
    arithmetic: str
    limits: tuple[LimitUse, ...]


@dataclass(frozen=True, config=_STRICT)
class Plan(InNotebooks):
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
        timed: Where the plan was made for a latency: by what runtime, on which machine.
        board: Where the plan was made for a device: what it takes of it.
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
    timed: str | None = None
    board: BoardUse | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if key not in ("timed", "board") or value is not None}


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


def is_wave(size: Shape) -> bool:
    """Whether inputs of this size are sounds: (channels, samples), (channels, samples, 1), (channels, 1, samples)."""
    return len(size) == 2 or (len(size) == 3 and 1 in size[1:])


def product(numbers: Shape) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
