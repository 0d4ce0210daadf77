"""The values that pass between stages. Plain data without behaviour; importing this file does not import torch.

Each is a frozen pydantic dataclass, so that a hand-edited JSON file is checked field by field when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")

# What a long stage calls as it goes: (stage, or "stage: detail"; how many are done; of how many, 0 where unknown).
Progress = Callable[[str, int, int], None]
Options = dict[str, Any]
Shape = tuple[int, ...]
# A tensor's shape in which an option's name may stand for its value: ("rank", 64).
SymbolicShape = tuple[int | str, ...]


@dataclass(frozen=True, config=_STRICT)
class ModelRef:
    """Where a model came from: enough to build it again. `sha256` is that of its tensors, names sorted."""

    name: str
    checkpoint: str | None = None
    sha256: str = ""


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """How images become inputs (timm's terms): channels x height x width, mean and std per channel."""

    input_size: Shape = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"


@dataclass(frozen=True, config=_STRICT)
class Layer:
    """One row of the survey. `shape` is the kernel's, (out, in / groups, *taps); positions are per image."""

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
    """A stored tensor: its name in the file, shape and safetensors dtype (F32, F16, I64 ...)."""

    name: str
    shape: Shape
    dtype: str = "F32"


@dataclass(frozen=True, config=_STRICT)
class Layout:
    """The tensors a scheme stores for one family: the shared ones, and each member's adapter, in the members' order.

    `indices` are the letters of those that hold int16 indices, whatever the net's dtype: never rounded, never trained.
    """

    shared: dict[str, SymbolicShape]
    adapters: tuple[dict[str, SymbolicShape], ...]
    indices: tuple[str, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class Family:
    """Layers that share tensors. The first member owns the shared ones. `options` are the scheme's fields."""

    scheme: str
    members: tuple[str, ...]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Route:
    """Layers whose routers may share tensors, which the first member then owns. `options` are the routing's fields.

    Independent of families: a layer may be converted and routed, or either. `members` are described as the survey
    does, since a routing may also stand at modules that the survey does not list.
    """

    routing: str
    layers: tuple[Layer, ...]
    options: Options = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)


@dataclass(frozen=True, config=_STRICT)
class Totals:
    """The four numbers, three of them: the fourth, milliseconds, is measured. `bytes` is the file's, header included.

    `macs` counts converted layers run factored wherever that is cheaper; folded back, the net costs what it did before.
    """

    params: int
    bytes: int
    macs: int


@dataclass(frozen=True, config=_STRICT)
class Plan:
    """The contract between the stages before and after it: what every layer becomes, to the parameter and the byte.

    By a family's first member: `predicted`, its share of the loss in the units of Choice.points, and `stored`, the
    parameters that it keeps in the file. `nested`, where a family's directions are in the order of their
    worth: the error of the first 1, 2, ... of them, in the same units, to cut the family by. `routed` is how many
    parameters the routers of its `routes` add; `unrouted`, by the layer, the KD1xx code of those that the recipe would
    route and its routing cannot.
    """

    model: ModelRef
    families: tuple[Family, ...]
    layers: tuple[Layer, ...]  # every surveyed layer, converted or not
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
    """Multiply-adds per image of one layer: `each` x size + `squared` x size^2 run factored, up to the size at which
    dense costs less."""

    dense: int
    each: int = 0
    squared: int = 0
    factored_up_to: int = -1  # never


@dataclass(frozen=True, config=_STRICT)
class Choice:
    """What a plan may choose for one family: a value of the scheme's size option, or to stay dense.

    `points` are predicted errors by size: the weighted output error of a quick fit. `macs` has a row a member. `fixed`
    is the size that the recipe insists on; `dense` says whether the family may stay dense where it does not.
    """

    family: Family  # without the size option
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
    """All that a plan is solved from: any budget, without the model. `fingerprint` names what it was made from.

    The `routes` are what the recipe says at every budget, but for the layers `unrouted` (as in Plan); `gates` are their
    tensors, `gate_params` and `gate_macs` what they add.
    """

    fingerprint: str
    model: ModelRef
    layers: tuple[Layer, ...]
    tensors: tuple[TensorSpec, ...]  # of the original file
    params: int  # of the original net; its buffers are in `tensors` only
    macs: int
    metadata: dict[str, str]  # of the converted file
    choices: tuple[Choice, ...]
    routes: tuple[Route, ...] = ()
    unrouted: dict[str, str] = field(default_factory=dict)
    gates: tuple[TensorSpec, ...] = ()
    gate_params: int = 0
    gate_macs: int = 0
    seed: int = 0
    version: int = 1


@dataclass(frozen=True, config=_STRICT)
class Divergence:
    """How far a net is from the original on the same images.

    `kl` in nats per image; `logit_error` = |z - z0|^2 / |z0|^2.
    """

    agreement: float
    kl: float
    logit_error: float
    images: int


@dataclass(frozen=True, config=_STRICT)
class Evaluation:
    """What `kdna eval` prints. Shares lie in 0..1; None where it could not be measured: no labels, no original.

    `kl` is KL(original || model) in nats per image, `logit_error` |z - z0|^2 / |z0|^2; `bytes` is the size of the file,
    header included; `macs` are per image, as the net runs (folded); `skipped` are the images that could not be read.
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
    """One budget of a trade-off: the share of the parameters asked for, what the plan comes to, its predicted error.

    `measured` is the divergence of a quick conversion by that plan, where one was asked for.
    """

    share: float
    planned: Totals
    predicted: float
    measured: Divergence | None = None


@dataclass(frozen=True, config=_STRICT)
class Curve:
    """Points by falling share of the original's `params`; `correlation` is Spearman's of predicted and measured."""

    params: int
    points: tuple[Point, ...]
    correlation: float | None = None


Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, config=_STRICT)
class Group:
    """Layers that could share, and how alike they are.

    `similarities` holds one matrix a measure, None where it is undefined; [i][j] of `explained` is the share of layer
    j's output energy that layer i's best basis explains. `families` gives each member its family's number, `silhouette`
    how distinct the families are (-1 to 1; None where undefined), `params` the members' parameters together.
    """

    key: str
    members: tuple[str, ...]
    similarities: dict[str, Matrix]
    families: tuple[int, ...]
    silhouette: float | None
    params: int


@dataclass(frozen=True, config=_STRICT)
class Analysis:
    """What `analyze` found. `metric` made the families; `params` are the whole model's, converted or not."""

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    alone: tuple[str, ...]  # layers that could be converted, but share with no other
    metric: str
    params: int


def to_json(value: Any) -> str:
    """Indented JSON of any dataclass of this file."""
    return TypeAdapter(type(value)).dump_json(value, indent=2).decode() + "\n"


def from_json(kind: type[T], text: str | bytes) -> T:
    """The inverse of to_json. Raises pydantic.ValidationError; callers name the file in their own error."""
    return TypeAdapter(kind).validate_json(text)


def required(part: T | None) -> T:
    """A part that must be there, such as the part of a report that the verb just added. Raises ValueError if not."""
    if part is None:
        raise ValueError("a part that must be there is missing")
    return part


def product(numbers: Shape) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total
