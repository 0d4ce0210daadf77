"""Find the quantization step at which a net's file has the wanted size: at most that, and within one percent.

Sequential coding takes a minute, and its size is known only afterwards. The size after plain rounding takes a second
and depends on the step in the same way: it gives the first guess, and the slope for each correction.
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
from ..repair.net_pair import BlockProgress, NetPair
from .sensitivity import Sensitivity
from .sequential import Rounding, balance, code_net

# The size that is aimed at, as a share of the one allowed, and the least that is good enough.
_AIM, _ENOUGH = 0.996, 0.99
# How many steps are tried.
_TRIES = 8
# The range of the first guess, in units of `_unit`.
_COARSEST, _FINEST = 1e9, 1e-6
# Halvings of the first guess, and the distance of the two steps from which the slope is measured.
_HALVINGS, _NEARBY = 5, 1.03
# Bytes that stand for a size the codec cannot produce.
_BEYOND = 1 << 40


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
        progress: Called after every block.

    Raises:
        PlanError: KD501 if even zeros take more bytes.
        NumericsError: KD704 if the codec cannot hold the net.
    """
    nets = balance(nets, sensitivity)

    def plain_size(delta: float) -> int:
        blob = _packed(*code_net(nets, sensitivity, delta, "nearest", _silent))
        return _BEYOND if blob is None else len(blob)

    delta = start or _guess(plain_size, room, _unit(nets, sensitivity))
    fine, coarse = 0.0, math.inf  # the coarsest step that was too fine, and the finest that was not
    best: CodedNet | None = None
    for attempt in range(_TRIES):
        coded = _coded(nets, sensitivity, delta, rounding, progress)
        size = _BEYOND if coded is None else len(coded.blob)
        if coded is None or size > room:
            fine = max(fine, delta)
        else:
            coarse = min(coarse, delta)
            best = coded if best is None or size > len(best.blob) else best
        if _ENOUGH * room <= size <= room:
            break
        slope = math.log(plain_size(delta / _NEARBY) / plain_size(delta * _NEARBY)) / (2 * math.log(_NEARBY))
        delta *= (size / (_AIM * room)) ** (1 / max(slope, 0.1)) * (1.01**attempt if best is None else 1)
        if not fine < delta < coarse:
            delta = math.sqrt(fine * coarse) if fine and coarse < math.inf else delta
    if best is None:
        raise PlanError("KD501", f"no step was found that takes {room:,} bytes; the last one tried takes {size:,}")
    return best


def _coded(
    nets: NetPair, sensitivity: Sensitivity, delta: float, rounding: Rounding, progress: BlockProgress
) -> CodedNet | None:
    model, steps = code_net(nets, sensitivity, delta, rounding, progress)
    blob = _packed(model, steps)
    return None if blob is None else CodedNet(load_stored(model, unpack(blob)), blob, delta)


def _packed(model: nn.Module, steps: dict[str, int]) -> bytes | None:
    """The coded bytes; None if a step is too fine for the codec, and so for the size."""
    try:
        return pack(model, "entropy", steps)
    except NumericsError as error:
        if error.code != "KD704":
            raise
        return None


def _guess(plain_size: Callable[[float], int], room: int, unit: float) -> float:
    """The step at which plain rounding gives the size, by bisection of its logarithm.

    Raises PlanError KD501 if even the coarsest takes more, NumericsError KD704 if the codec cannot hold it.
    """
    least = plain_size(unit * _COARSEST)
    if least == _BEYOND:
        raise NumericsError("KD704", "this net's largest numbers are too far from its others; use --codec bf16")
    if least > _AIM * room:
        raise PlanError(
            "KD501", f"the names and zeros of this net alone take {least:,} bytes, and {room:,} are allowed"
        )
    low = high = unit
    while plain_size(high) > room:
        high *= 4
    while low > unit * _FINEST and plain_size(low) <= room:
        low, high = low / 4, low
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if plain_size(middle) > room else (low, middle)
    return high


def _unit(nets: NetPair, sensitivity: Sensitivity) -> float:
    """A medium step: the size of a typical weight of the median layer, in units of the loss."""
    sizes: list[float] = []
    for layer in nets.layers:
        weight = kernel_of(nets.converted.get_submodule(layer.name))
        inputs = mean_diagonal(sensitivity.moment(layer.name, layer.patch))
        energy = float(weight.square().mean()) * inputs * sensitivity.cost(layer.name)
        sizes.append(max(energy, 1e-60) ** 0.5)
    return sorted(sizes)[len(sizes) // 2]


def _silent(done: int, of: int) -> None:
    """No progress."""
