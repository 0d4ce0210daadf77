"""Find the quantization step at which a net's file has the wanted size: at most that, and within one percent.

Sequential coding takes long, and its size is known only afterwards. Rounding the layers separately takes a fraction of
the time and nearly the same bytes: it gives the step, which the sequential walk corrects on its way
(estimated_sizes.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from ...core.errors import NumericsError, PlanError
from ...core.linalg import mean_diagonal
from ...network.packed import pack, unpack
from ...network.stored import load_stored, stored_state
from ...network.walk import kernel_of
from ..repair.net_pair import BlockProgress, NetPair
from .estimated_sizes import Pace, Sizes, sizes_of
from .sensitivity import Sensitivity
from .sequential import Rounding, balance, code_net

# The size that is aimed at, as a share of the one allowed, and the least that is good enough.
_AIM, _ENOUGH = 0.995, 0.99
# How many steps are tried, with each rounding.
_TRIES = 8
# The range of steps, in units of `_unit`.
_COARSEST, _FINEST = 1e9, 1e-6
# How far, in octaves, the step may be from the one at which its size was estimated.
_NEAR = 1.0
# The bits of sequential rounding, in those of separate rounding, as measured on a ResNet-20 and a ResNet-56.
_GROWTH = 1.025
# Bytes that stand for a size the codec cannot produce.
_BEYOND = 1 << 40
_TOO_FAR = "this net's largest numbers are too far from its others; use --codec bf16"


@dataclass(frozen=True)
class CodedNet:
    """A quantized net, its bytes (network/packed.py), and the step `delta` that made them."""

    model: nn.Module
    blob: bytes
    delta: float


def code_to_size(
    nets: NetPair,
    sensitivity: Sensitivity,
    room: int,
    *,
    rounding: Rounding,
    start: float | None = None,
    progress: BlockProgress,
) -> CodedNet:
    """Code `nets.converted` as finely as `room` bytes allow.

    Args:
        nets: The net to code, and the one whose outputs it should keep.
        sensitivity: What errors cost.
        room: The most bytes.
        rounding: How layers are rounded.
        start: The first step to try.
        progress: Called after every layer.

    Raises:
        PlanError: KD501 if even zeros take more bytes.
        NumericsError: KD704 if the codec cannot hold the net.
    """
    nets = balance(nets, sensitivity)
    search = _Search(nets, sensitivity, _unit(nets, sensitivity))
    aim = _AIM * room
    sizes = search.estimate(start or search.guess(aim), aim).grown(_GROWTH if rounding == "sequential" else 1.0)
    delta, size = search.within(sizes.delta_for(aim)), _BEYOND
    fine, coarse = 0.0, math.inf  # the coarsest step that was too fine, and the finest that was not
    best: CodedNet | None = None
    for attempt in range(_TRIES):
        found = search.coded(Pace(delta, sizes, aim), rounding, progress)
        size = _BEYOND if found is None else len(found[0].blob)
        if found is None or size > room:
            fine = max(fine, delta)
        else:
            coarse = min(coarse, delta)
            best = found[0] if best is None or size > len(best.blob) else best
        if _ENOUGH * room <= size <= room:
            break
        delta, sizes = (4 * delta, sizes) if found is None else (found[1].delta_for(aim), found[1])
        delta = search.within(delta * (1.01**attempt if best is None else 1))
        if not fine < delta < coarse:
            delta = math.sqrt(fine * coarse) if fine and coarse < math.inf else delta
    if best is None:
        raise PlanError("KD501", f"no step was found that takes {room:,} bytes; the last one tried takes {size:,}")
    return best


@dataclass(frozen=True)
class _Search:
    """A balanced net, and a step of the size of its typical weight."""

    nets: NetPair
    sensitivity: Sensitivity
    unit: float

    def coded(self, pace: Pace, rounding: Rounding, progress: BlockProgress) -> tuple[CodedNet, Sizes] | None:
        """The coded net and the sizes near its step; None if a step is too fine for the codec, and so for the size."""
        model, steps = code_net(self.nets, self.sensitivity, pace, rounding, progress)
        try:
            blob = pack(model, "entropy", steps)
        except NumericsError as error:
            if error.code != "KD704":
                raise
            return None
        sizes = sizes_of(self.nets.converted, model, steps, blob, pace)
        return CodedNet(load_stored(model, unpack(blob)), blob, pace.mean), sizes

    def guess(self, size: float) -> float:
        """A step for this size. For a ResNet-20 and a ResNet-56 at 0.8 to 2.3 bits it is right within 0.3 octaves."""
        numbers = sum(tensor.numel() for tensor in stored_state(self.nets.converted).values())
        return self.within(self.unit * 2.0 ** (0.85 - 1.2 * min(8 * size / numbers, 30)))

    def within(self, delta: float) -> float:
        """The step nearest to this one in the range of steps."""
        return min(max(delta, _FINEST * self.unit), _COARSEST * self.unit)

    def estimate(self, delta: float, size: float) -> Sizes:
        """The sizes near the step at which separate rounding takes `size` bytes.

        Raises:
            PlanError: KD501 if the coarsest step takes more.
            NumericsError: KD704 if the codec cannot hold the net.
        """
        sizes: Sizes | None = None
        for attempt in range(_TRIES):
            found = self.coded(Pace(delta), "separate", _silent)
            if attempt == 0:  # the spreads of all layers are known now, so that rounding to the nearest is fast
                self._require_room(size)
            sizes = sizes if found is None else found[1]
            wanted = self.within(64 * delta if found is None else found[1].delta_for(size))
            if found is not None and abs(math.log2(wanted / delta)) <= _NEAR:
                break
            delta = wanted
        if sizes is None:
            raise NumericsError("KD704", _TOO_FAR)
        return sizes

    def _require_room(self, size: float) -> None:
        """Refuse a net that takes more bytes with the coarsest step."""
        found = self.coded(Pace(_COARSEST * self.unit), "nearest", _silent)
        if found is None:
            raise NumericsError("KD704", _TOO_FAR)
        least = len(found[0].blob)
        if least > size:
            raise PlanError(
                "KD501", f"the names and zeros of this net alone take {least:,} bytes, and {int(size):,} are allowed"
            )


def _unit(nets: NetPair, sensitivity: Sensitivity) -> float:
    """A medium step: the size of a typical weight of the median layer, in units of the loss."""
    sizes: list[float] = []
    for layer in nets.layers:
        weight = kernel_of(nets.converted.get_submodule(layer.name))
        inputs = mean_diagonal(sensitivity.moment(layer.name, layer.patch)) if sensitivity.knows(layer.name) else 1.0
        energy = float(weight.square().mean()) * inputs * sensitivity.cost(layer.name)
        sizes.append(max(energy, 1e-60) ** 0.5)
    return sorted(sizes)[len(sizes) // 2]


def _silent(done: int, of: int) -> None:
    """No progress."""
