"""The options that say how large or how fast the result is to be, as dataclasses."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any

import typer

from ...core.plugin_names import ArithmeticName, RuntimeName
from .completion import board_names
from .option_values import Text, checked
from .options import BYTES_HELP, DATABASE_HELP, METRIC, PARAMS_HELP, SHARE, SIZE

LATENCY = checked("parse_latency", 1)
BYTES = checked("parse_size")
_budget, _latency, _board = (partial(typer.Option, rich_help_panel=panel) for panel in ("Budget", "Latency", "Board"))


TargetParams = Annotated[Text, _budget(metavar="SHARE", help=PARAMS_HELP, callback=SHARE)]
TargetBytes = Annotated[Text, _budget(metavar="SIZE", help=BYTES_HELP, callback=SIZE)]
TargetLatency = Annotated[
    Text,
    _budget(
        metavar="TIME",
        help="Time of one image: 12ms, or a share of the original's as 0.7. By --runtime, run factored.",
        callback=LATENCY,
    ),
]


@dataclass(frozen=True)
class RecipeSizeFlags:
    """The size of the result of a whole recipe. With a codec, the bytes are the codec's and the others the plan's."""

    target_params: TargetParams = None
    target_bytes: TargetBytes = None
    target_latency: TargetLatency = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class SizeFlags:
    """The size of the result, relative to the original: at most one of these."""

    target_params: TargetParams = None
    target_bytes: TargetBytes = None
    target_macs: Annotated[
        Text,
        _budget(
            metavar="SHARE",
            help="Share of the MACs to keep in the factored net: 0.5, 50% or 1/2.",
            callback=SHARE,
        ),
    ] = None

    @property
    def budget(self) -> dict[str, Any]:
        """The targets, None where not given."""
        names = [field.name for field in fields(self) if field.name not in ("database", "metric")]
        given = {name: getattr(self, name) for name in names}
        flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if len(flags) > 1:
            raise typer.BadParameter("give only one of these", param_hint=" and ".join(flags))
        return given


@dataclass(frozen=True)
class GoalFlags(SizeFlags):
    """A size or a drop in accuracy. Without either, the recipe's budget."""

    max_drop: Annotated[
        float | None,
        _budget(
            metavar="POINTS",
            min=0.0,
            help="Instead of a size: the fewest parameters that lose at most this much top-1, or of --metric.",
        ),
    ] = None
    metric: Annotated[
        Text,
        _budget(metavar="FUNCTION", help=f"{METRIC}. --max-drop counts it."),
    ] = None
    target_latency: TargetLatency = None
    database: Annotated[Text, _budget(metavar="FILE", help=DATABASE_HELP)] = None

    def refuse(self, flag: str, besides: str = "") -> None:
        """Raise a usage error if any of these options but `besides` is given together with `flag`."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        given = [f"--{name.replace('_', '-')}" for name in names if name != besides]
        if given:
            raise typer.BadParameter(f"{flag} already decides the size", param_hint=", ".join(given))

    @property
    def arguments(self) -> dict[str, Any]:
        if self.metric is not None and self.max_drop is None:
            raise typer.BadParameter("requires --max-drop", param_hint="--metric")
        return {**self.budget, "database": self.database, "metric": self.metric}


@dataclass(frozen=True)
class LatencyFlags:
    """What times a net and its layers."""

    runtime: Annotated[
        RuntimeName, _latency(metavar="NAME", help="What runs the net: onnxruntime, openvino or torch.")
    ] = "onnxruntime"
    threads: Annotated[
        int | None, _latency(metavar="N", min=1, max=os.cpu_count(), help="CPU threads. Default: those of torch.")
    ] = None
    profile: Annotated[
        Text,
        _latency(metavar="FILE", help="Measured times: read, and added to. Default: ~/.cache/kdna/latency.jsonl."),
    ] = None
    other_machine: Annotated[
        bool, _latency("--other-machine", help="Use a --profile that was measured on another machine.")
    ] = False

    @property
    def arguments(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class BoardFlags:
    """A device and its limits, estimated from its profile. They hold besides a budget, or in place of the recipe's."""

    board: Annotated[
        Text,
        _board(
            metavar="BOARD",
            help="Profile of a device: a file, or a name of `kdna ls boards`. Its flash and memory are limits.",
            autocompletion=board_names,
        ),
    ] = None
    arithmetic: Annotated[
        ArithmeticName | None,
        _board(metavar="NAME", help="int8 or fp32: what the device computes in. Default: int8."),
    ] = None
    max_flash: Annotated[
        Text, _board(metavar="SIZE", help="Parameters and code: 1MB. Default: the board's flash.", callback=BYTES)
    ] = None
    max_peak_memory: Annotated[
        Text,
        _board(metavar="SIZE", help="Activations alive at once: 320kB. Default: the board's memory.", callback=BYTES),
    ] = None
    max_latency: Annotated[
        Text,
        _board(metavar="TIME", help="Time of one image: 12ms, or a share of the original's.", callback=LATENCY),
    ] = None

    def refuse(self, flag: str) -> None:
        """Raise a usage error if any of these options is given together with `flag`."""
        given = [f"--{name.replace('_', '-')}" for name, value in self.arguments.items() if value is not None]
        if given:
            raise typer.BadParameter(f"{flag} takes no limits of a board", param_hint=", ".join(given))

    @property
    def arguments(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
