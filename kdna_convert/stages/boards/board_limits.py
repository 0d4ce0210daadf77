"""The limits of a device for a plan: what every size of every family takes of its flash, time and memory.

* Flash: the parameters that a plan stores, at the bytes of the arithmetic, and the code of the runtime. Shared
  parameters count once; indices take two bytes.
* Latency: multiply-adds times cycles, by kind of layer, over the clock.
* Peak memory: the activations that are alive at a step (network/liveness.py).

A converted layer runs as `derive.factor` has it: as a chain where that takes fewer multiply-adds. Elsewhere its weight
is computed into memory when the layer runs, which counts there and in its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...core.choices import Choice, Database
from ...core.plugin_names import ArithmeticName
from ...core.specs import Layer, Shape, SymbolicShape, TensorSpec, product
from ...inputs.boards import BYTES_PER_NUMBER, Board
from ...inputs.recipe import parse_latency
from ...network.liveness import LiveStep, live_steps
from ...schemes import Scheme, concrete, scheme_of
from ..analyze.targets import shapes_of
from ..latency.latencies import chain_of
from ..plan.costs import family_tensors
from ..plan.limits import BoardLimits, Peak, PeakLimit, SumLimit
from .layer_costs import Link, chain_links, chain_peak, cycles_of, dense_link


@dataclass(frozen=True)
class BoardTarget:
    """A device and what a net may take of it.

    Attributes:
        board: Its profile; None where only sizes are limited, and then nothing is known about time.
        arithmetic: In which the net runs.
        flash: Bytes; None: no limit.
        peak_memory: Bytes; None: no limit.
        latency: A time of one image, "12ms", or a share of the original's; None: no limit.
    """

    board: Board | None
    arithmetic: ArithmeticName
    flash: int | None = None
    peak_memory: int | None = None
    latency: float | str | None = None

    @property
    def code(self) -> int:
        """Bytes of flash that the runtime takes."""
        return 0 if self.board is None or self.board.code is None else self.board.code.value

    @property
    def work(self) -> int:
        """Bytes of memory that the runtime takes beside the activations."""
        return 0 if self.board is None or self.board.work is None else self.board.work.value

    def nanoseconds(self, links: Sequence[Link], calls: int = 1) -> int:
        """The time of a chain of layers. Raises PlanError KD511 for an arithmetic without figures."""
        if self.board is None:
            return 0
        cycles = cycles_of(links, self.board.cycles(self.arithmetic), calls)
        return round(cycles / self.board.clock.value * 1e9)


def board_limits(database: Database, model: nn.Module, example: Tensor, target: BoardTarget) -> BoardLimits:
    """The limits of a device for the plans of a database.

    Args:
        database: Of the net, without routes.
        model: The original.
        example: A batch of its inputs; the first image is used.
        target: The device.

    Raises:
        PlanError: KD511 for an arithmetic that the profile has no figures for, KD506 for an invalid latency.
    """
    costs = _Costs(database, model, example, target)
    sums = [SumLimit("flash", target.flash, costs.dense_flash, costs.extra_flash)]
    if target.board is not None:
        allowed = None if target.latency is None else parse_latency(target.latency, costs.dense_time)
        sums.append(SumLimit("latency", allowed, costs.dense_time, costs.extra_time))
    peak = PeakLimit(target.peak_memory, costs.others, costs.dense_peaks, costs.peak)
    name = None if target.board is None else target.board.name
    return BoardLimits(name, target.arithmetic, tuple(sums), peak)


class _Costs:
    """What the layers of a net take of a device, dense and at every size of a family, each computed once."""

    def __init__(self, database: Database, model: nn.Module, example: Tensor, target: BoardTarget) -> None:
        self.database, self.model, self.target = database, model, target
        self.each = BYTES_PER_NUMBER[target.arithmetic]
        self.layers = {layer.name: layer for layer in database.layers}
        modules = dict(model.named_modules())
        self.steps: dict[str, list[LiveStep]] = {name: [] for name in self.layers}
        others = [Peak(target.work, "the runtime")]
        changing = {name for choice in database.choices for name in choice.family.members}
        for step in live_steps(model, example, [name for name in self.layers if name in modules]):
            if step.layer:
                self.steps[step.name].append(step)
            if step.name not in changing or not step.layer:
                others.append(Peak(self._bytes(step.alive), step.name))
        self.others = max(others, key=lambda peak: peak.bytes)
        self.dense_peaks = {name: self._dense_peak(name) for name in changing}
        self.links = cache(self._links)
        self.weight_macs = cache(self._weight_macs)
        self.extra_flash, self.extra_time = cache(self._extra_flash), cache(self._extra_time)
        self.peak = cache(self._peak)

    @property
    def dense_flash(self) -> int:
        """Bytes of the original's parameters and of the runtime."""
        return self.database.params * self.each + self.target.code

    @property
    def dense_time(self) -> int:
        """Nanoseconds of the original. Multiply-adds outside of layers count as those of linear layers."""
        layers = sum(self._dense_time(layer) for layer in self.layers.values())
        outside = self.database.macs - sum(layer.macs for layer in self.layers.values())
        return layers + self.target.nanoseconds([Link((1, 1), 1, max(outside, 0))], calls=0)

    def _extra_flash(self, number: int, size: int) -> int:
        """Bytes of a family more than its dense layers."""
        choice = self.database.choices[number]
        stored, dense = (
            sum(product(spec.shape) * self._bytes_of(spec) for spec in family_tensors(self.database, choice, own))
            for own in (size, None)
        )
        return stored - dense

    def _extra_time(self, number: int, size: int) -> int:
        """Nanoseconds of a family more than its dense layers."""
        members = self.database.choices[number].family.members
        return sum(self._member_time(number, size, place) for place in range(len(members)))

    def _member_time(self, number: int, size: int, place: int) -> int:
        layer = self._layer(number, place)
        links = self.links(number, size, place)
        calls = max(len(self.steps[layer.name]), 1)
        if links is not None:
            return self.target.nanoseconds(links, calls) - self._dense_time(layer)
        built = Link((1, 1), 1, calls * self.weight_macs(number, size, layer.shape))
        return self.target.nanoseconds([built], calls=0)

    def _peak(self, number: int, size: int) -> Peak:
        """The largest step of a family."""
        members = self.database.choices[number].family.members
        peaks = [self._member_peak(number, size, place) for place in range(len(members))]
        return max(peaks, key=lambda own: own.bytes)

    def _member_peak(self, number: int, size: int, place: int) -> Peak:
        layer = self._layer(number, place)
        steps = self.steps[layer.name]
        links = self.links(number, size, place)
        if links is not None:
            alive = max((chain_peak(links, step, len(steps)) for step in steps), default=0)
        else:
            alive = max((step.alive for step in steps), default=0) + layer.params
        return Peak(self._bytes(alive), layer.name)

    def _layer(self, number: int, place: int) -> Layer:
        return self.layers[self.database.choices[number].family.members[place]]

    def _links(self, number: int, size: int, place: int) -> tuple[Link, ...] | None:
        """The chain of a member; None where its weight is computed instead."""
        choice = self.database.choices[number]
        if size > choice.macs[place].factored_up_to:
            return None
        layer = self._layer(number, place)
        shapes = shapes_of(choice.family, self.database.layers)
        module = self.model.get_submodule(layer.name)
        kernels = chain_of(choice.family, choice.size, size, shapes, place, module)
        return None if kernels is None else chain_links([tuple(kernel.shape) for kernel in kernels], layer)

    def _weight_macs(self, number: int, size: int, shape: Shape) -> int:
        """The multiply-adds that compute a weight of this shape; members of one shape compute it alike."""
        choice = self.database.choices[number]
        shapes = shapes_of(choice.family, self.database.layers)
        return _macs_of_weight(choice, size, shape, shapes.index(shape))

    def _dense_time(self, layer: Layer) -> int:
        if not layer.out_positions:
            return 0
        return self.target.nanoseconds([dense_link(layer)], max(len(self.steps[layer.name]), 1))

    def _dense_peak(self, name: str) -> int:
        return self._bytes(max((step.alive for step in self.steps[name]), default=0))

    def _bytes(self, numbers: int) -> int:
        return numbers * self.each + self.target.work

    def _bytes_of(self, spec: TensorSpec) -> int:
        return 2 if spec.dtype == "I16" else self.each


def _macs_of_weight(choice: Choice, size: int, shape: Shape, place: int) -> int:
    """The multiply-adds that compute a member's weight from the stored tensors; at least one per weight."""
    scheme = scheme_of(choice.family, **{choice.size: size})
    counter: Any = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        shared = _empty(choice.layout.shared, scheme, choice.layout.indices)
        adapter = _empty(choice.layout.adapters[place], scheme, choice.layout.indices)
        scheme.expand(shared, adapter, shape)
    return max(product(shape), int(counter.get_total_flops()) // 2)


def _empty(part: Mapping[str, SymbolicShape], scheme: Scheme, indices: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of these shapes without values, on the current device."""
    dtypes = {letter: torch.int16 if letter in indices else torch.float32 for letter in part}
    return {letter: torch.empty(concrete(shape, scheme), dtype=dtypes[letter]) for letter, shape in part.items()}
