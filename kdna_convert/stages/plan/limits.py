"""The limits of a device that a plan keeps besides its budget: flash, latency and peak memory. No torch, no model.

Flash and latency add up over the families, each compared with its dense layers: rows of the knapsack. Peak memory is
the largest of all steps, so that a size of a family is allowed or not, whatever the others have (MicroNAS,
arXiv 2310.18384, section 3). stages/boards computes what a size costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.choices import Choice
from ...core.errors import PlanError
from ...core.specs import BoardUse, LimitUse

LimitName = Literal["flash", "peak memory", "latency"]
FLAGS: dict[LimitName, str] = {
    "flash": "--max-flash",
    "peak memory": "--max-peak-memory",
    "latency": "--max-latency",
}


def shown(name: LimitName, amount: int) -> str:
    """An amount with its unit: 61.2kB, 7.31 ms."""
    if name == "latency":
        return f"{amount / 1e6:,.4g} ms"
    return f"{amount} bytes" if amount < 1000 else f"{amount / 1000:,.4g} kB"


@dataclass(frozen=True)
class SumLimit:
    """Something that adds up over the families.

    Attributes:
        name: What it is: flash in bytes, or latency in nanoseconds.
        allowed: At most so much; None: it is only reported.
        dense: That of the original net.
        extra: By the number of a family and its size: how much more than its dense layers. May be negative.
    """

    name: LimitName
    allowed: int | None
    dense: int
    extra: Callable[[int, int], int]

    def used(self, sizes: Sequence[int | None]) -> int:
        """That of the net with its families at these sizes, None: dense."""
        return self.dense + sum(self.extra(number, size) for number, size in enumerate(sizes) if size is not None)


@dataclass(frozen=True)
class Peak:
    """The bytes of a step of the forward pass, and the name of its layer or operation."""

    bytes: int
    at: str


@dataclass(frozen=True)
class PeakLimit:
    """The most bytes of activations, and of weights that are computed for a layer, at any step.

    Attributes:
        allowed: At most so many; None: they are only reported.
        others: The largest step that no family changes.
        dense: By layer of a family: its largest step, dense.
        peak: By the number of a family and its size: the largest step of its members.
    """

    allowed: int | None
    others: Peak
    dense: Mapping[str, int]
    peak: Callable[[int, int], Peak]

    def allows(self, number: int, size: int) -> bool:
        """Whether the family may have this size."""
        return self.allowed is None or self.peak(number, size).bytes <= self.allowed

    def forbids_dense(self, layer: str) -> bool:
        """Whether the layer cannot stay as it is."""
        return self.allowed is not None and self.dense.get(layer, 0) > self.allowed

    def used(self, choices: Sequence[Choice], sizes: Sequence[int | None]) -> Peak:
        """The largest step of the net with its families at these sizes, None: dense."""
        steps, dense = [self.others], dict(self.dense)
        for number, (choice, size) in enumerate(zip(choices, sizes, strict=True)):
            if size is not None:
                steps.append(self.peak(number, size))
                for name in choice.family.members:
                    dense.pop(name, None)
        steps += [Peak(size, name) for name, size in dense.items()]
        return max(steps, key=lambda step: step.bytes)

    def require_reachable(self, choices: Sequence[Choice], grids: Sequence[Sequence[int]]) -> None:
        """Raise PlanError KD501 if a step is over the limit at all of these sizes of each family, and dense.

        The message names the step with the largest need.
        """
        if self.allowed is None:
            return
        ways: dict[str, list[Peak]] = {}
        for number, (choice, sizes) in enumerate(zip(choices, grids, strict=True)):
            peaks = [self.peak(number, size) for size in sizes]
            for name in choice.family.members:
                dense = [Peak(self.dense[name], name)] if choice.dense and choice.fixed is None else []
                ways.setdefault(name, []).extend([*dense, *peaks])
        needs = [min(peaks, key=lambda step: step.bytes) for peaks in ways.values()]
        worst = max([self.others, *needs], key=lambda step: step.bytes)
        if worst.bytes > self.allowed:
            need = shown("peak memory", worst.bytes)
            how = f"layer {worst.at} needs {need} dense or in any other form"
            if worst.at not in ways:
                how = f"{worst.at} needs {need}, and no conversion changes that"
            limit = f"{FLAGS['peak memory']} {shown('peak memory', self.allowed)}"
            raise PlanError("KD501", f"{limit} cannot be met: {how}; the least is {need}")


@dataclass(frozen=True)
class BoardLimits:
    """All limits of a device. `board` is its name, None where only sizes are given; `arithmetic` is int8 or fp32."""

    board: str | None
    arithmetic: str
    sums: tuple[SumLimit, ...]
    peak: PeakLimit

    @property
    def decides(self) -> bool:
        """Whether anything is limited, so that a plan needs no other budget."""
        return any(allowed is not None for allowed in (self.peak.allowed, *(limit.allowed for limit in self.sums)))

    def use(self, choices: Sequence[Choice], sizes: Sequence[int | None]) -> BoardUse:
        """What a plan takes of each limit."""
        dense = [None] * len(sizes)
        before, after = (self.peak.used(choices, each) for each in (dense, sizes))
        uses = [LimitUse(limit.name, limit.used(sizes), limit.used(dense), limit.allowed) for limit in self.sums]
        memory = LimitUse("peak memory", after.bytes, before.bytes, self.peak.allowed, after.at)
        return BoardUse(self.board, self.arithmetic, (*uses, memory))
