"""What a plan is chosen from: families at several sizes, with their predicted errors. Plain values."""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .specs import Family, Layer, Layout, ModelRef, Route, TensorSpec

_STRICT = ConfigDict(extra="forbid")
# Runtimes store channels in blocks: a chain of 17 channels takes as long as one of 32.
BLOCK = 16


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
class MemberLatency:
    """Nanoseconds of one layer on a batch: `dense`, and as a chain by its size.

    Between two sizes, the time is interpolated. A chain that takes longer than the dense layer is not run. A layer that
    has no chain has no times.
    """

    dense: int
    chains: dict[int, int] = field(default_factory=dict)


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
        latency: The times of each member, where a plan is made for a latency.
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
    latency: tuple[MemberLatency, ...] = ()


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
        bytes: Of the original's file where its numbers are not float32, as `tensors` are; None: those of `tensors`.
        choices: The families and what a plan may choose for each.
        routes: The routings, equal for every budget.
        unrouted: As in Plan.
        gates: The tensors of the routers.
        gate_params: The parameters that the routers add.
        gate_macs: The multiply-adds per image that the routers add.
        seed: Of everything drawn at random.
        version: Of this format.
        latency: Nanoseconds of the original on a batch, where a plan is made for a latency.
        timed: By what, on which machine: "onnxruntime 1.32, 2 threads, AMD EPYC".
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
    bytes: int | None = None
    latency: int | None = None
    timed: str | None = None
