"""The step of a whole net that makes its file as large as is wished: at most that, and within one percent.

Coding behind a prefix takes a minute and its size is known only afterwards. What each tensor would take if it were just
rounded takes a second and falls with the step alike: it gives the first guess and, at each correction, the slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ...core.errors import NumericsError, PlanError
from ...core.linalg import mean_diagonal
from ...network.packed import pack, unpack
from ...network.stored import load_stored
from ...network.walk import kernel_of
from ..repair.nets import Nets, Tick
from .sequential import Felt, Manner, balanced, code_net

# The size that is aimed at, as a share of the one allowed, and the least that is good enough.
_AIM, _ENOUGH = 0.996, 0.99
_TRIES = 8
_COARSEST, _FINEST = 1e9, 1e-6
_HALVINGS, _NEARBY = 5, 1.03
_BEYOND = 1 << 40  # bytes, where a size cannot be had


@dataclass(frozen=True)
class Coded:
    """A net on its grids, its bytes (container.py), and the step that made them."""

    model: nn.Module
    blob: bytes
    delta: float


def code_to_size(nets: Nets, felt: Felt, room: int, *, manner: Manner, start: float | None = None, tick: Tick) -> Coded:
    """Code `nets.converted` in at most `room` bytes, as finely as they allow; `start` is a step to begin from.

    Raises PlanError KD501 where even zeros would take more, NumericsError KD704 where the codec cannot hold the net.
    """

    nets = balanced(nets, felt)

    def rough(delta: float) -> int:
        blob = _packed(*code_net(nets, felt, delta, "nearest", _silent))
        return _BEYOND if blob is None else len(blob)

    delta = start or _guess(rough, room, _unit(nets, felt))
    fine, coarse = 0.0, math.inf  # the nearest steps that were too fine, and that were not
    best: Coded | None = None
    for tried in range(_TRIES):
        found = _coded(nets, felt, delta, manner, tick)
        size = _BEYOND if found is None else len(found.blob)
        if found is None or size > room:
            fine = max(fine, delta)
        else:
            coarse = min(coarse, delta)
            best = found if best is None or size > len(best.blob) else best
        if _ENOUGH * room <= size <= room:
            break
        slope = math.log(rough(delta / _NEARBY) / rough(delta * _NEARBY)) / (2 * math.log(_NEARBY))
        delta *= (size / (_AIM * room)) ** (1 / max(slope, 0.1)) * (1.01**tried if best is None else 1)
        if not fine < delta < coarse:
            delta = math.sqrt(fine * coarse) if fine and coarse < math.inf else delta
    if best is None:
        raise PlanError("KD501", f"no step was found that takes {room:,} bytes; the last that was tried took {size:,}")
    return best


def _coded(nets: Nets, felt: Felt, delta: float, manner: Manner, tick: Tick) -> Coded | None:
    model, steps = code_net(nets, felt, delta, manner, tick)
    blob = _packed(model, steps)
    return None if blob is None else Coded(load_stored(model, unpack(blob)), blob, delta)


def _packed(model: nn.Module, steps: dict[str, int]) -> bytes | None:
    """None where a step is too fine for the codec: so it is for the room."""
    try:
        return pack(model, "entropy", steps)
    except NumericsError as error:
        if error.code != "KD704":
            raise
        return None


def _guess(rough: Callable[[float], int], room: int, unit: float) -> float:
    """The step at which nets that are just rounded have the size, by bisection of its logarithm.

    Raises PlanError KD501 where even the coarsest takes more, NumericsError KD704 where the codec cannot hold it.
    """
    least = rough(unit * _COARSEST)
    if least == _BEYOND:
        raise NumericsError("KD704", "this net's largest numbers are too far from its others; use --codec bf16")
    if least > _AIM * room:
        raise PlanError(
            "KD501", f"the names and zeros of this net alone take {least:,} bytes, and {room:,} are allowed"
        )
    low = high = unit
    while rough(high) > room:
        high *= 4
    while low > unit * _FINEST and rough(low) <= room:
        low, high = low / 4, low
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rough(middle) > room else (low, middle)
    return high


def _unit(nets: Nets, felt: Felt) -> float:
    """A step in the middle of things: as large as a typical weight of a typical layer, in the loss's terms."""
    sizes: list[float] = []
    for layer in nets.layers:
        weight = kernel_of(nets.converted.get_submodule(layer.name))
        energy = (
            float(weight.square().mean()) * mean_diagonal(felt.moment(layer.name, layer.patch)) * felt.of(layer.name)
        )
        sizes.append(max(energy, 1e-60) ** 0.5)
    return sorted(sizes)[len(sizes) // 2]


def _silent(done: int, of: int) -> None:
    """A tick that nobody hears."""
