"""What a net's file will take at another step, without rounding or coding the net again.

Rounding with error feedback is like plain rounding of each number plus noise, the feedback of earlier errors. The noise
of each tensor is measured in a net that is coded already. At another step, the entropy of the histogram of the rounded
noisy numbers gives the bits; their ratio to bytes is that of the coded net.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...codecs.quantization_steps import step_of
from ...network.packed import entropy_bytes
from ...network.stored import stored_state

Floats = NDArray[np.float64]

# The steps of the curves, in octaves from the coded one; and how many numbers of a tensor give its histogram.
OCTAVES = np.arange(-12, 13) / 8
_DRAWN = 1 << 16
# Uniform rounding errors have this variance, in squared steps.
_UNIFORM = 1 / 12
# Of a Pace: the share of the bits that its expectation is trusted with, the error of the size up to which it leaves the
# step, and how far it moves the step, in octaves.
_TRUSTED, _TOLERANCE, _FURTHEST = 0.3, 0.001, 0.1


@dataclass(frozen=True)
class Sizes:
    """The bits of each tensor, and the bytes of the file, by the step of the net.

    Attributes:
        delta: The step that the net was coded at.
        curves: The bits of each tensor at each of OCTAVES from there, by stored name.
        fixed: The bytes that do not depend on the step.
        rate: The bytes of a bit.
    """

    delta: float
    curves: dict[str, Floats]
    fixed: int
    rate: float

    def grown(self, factor: float) -> Sizes:
        """The sizes of a net whose tensors take this many times the bits."""
        return replace(self, curves={name: factor * curve for name, curve in self.curves.items()})

    def delta_for(self, size: float) -> float:
        """The step at which the file has this size; the finest or coarsest of the curves if none of them has."""
        return self.delta_of(self.bits_of(size), total(self.curves.values()))

    def bits_of(self, size: float) -> float:
        """The bits that the tensors take in a file of this size."""
        return (size - self.fixed) / self.rate

    def delta_of(self, bits: float, curve: Floats) -> float:
        """The step at which a sum of curves has these bits."""
        return self.delta * math.pow(2, float(np.interp(-bits, -np.minimum.accumulate(curve), OCTAVES)))

    def bits_at(self, delta: float, curve: Floats) -> float:
        """A sum of curves at a step."""
        return float(np.interp(math.log2(delta / self.delta), OCTAVES, curve))


def sizes_of(before: nn.Module, coded: nn.Module, steps: Mapping[str, int], blob: bytes, pace: Pace) -> Sizes:
    """The sizes near the step of a coded net.

    Args:
        before: The net before.
        coded: The quantized net.
        steps: The numbers of its steps.
        blob: Its bytes.
        pace: The step of each of its tensors.
    """
    numbers, rounded, delta = stored_state(before), stored_state(coded), pace.mean
    curves = {
        name: _curve(numbers[name], rounded[name], step, math.log2(delta / pace.deltas.get(name, delta)))
        for name, step in steps.items()
        if name in rounded
    }
    own = entropy_bytes(blob)
    bits = float(np.interp(0, OCTAVES, total(curves.values())))
    return Sizes(delta, curves, len(blob) - own, own / max(bits, 1.0))


def total(curves: Iterable[Floats]) -> Floats:
    """The sum of curves."""
    return sum(curves, np.zeros_like(OCTAVES))


class Pace:
    """The step of a net that is being coded, corrected on the way so that the whole takes the wanted size.

    If the layers coded so far took more or fewer bits than expected, so will the others. Without `sizes` the step is
    constant.

    Attributes:
        delta: The step of the layers that are coded next.
        deltas: That of each coded tensor, by stored name.
    """

    def __init__(self, delta: float, sizes: Sizes | None = None, size: float = 0) -> None:
        self.delta = self._first = delta
        self.deltas: dict[str, float] = {}
        self._octaves = self._numbers = self._took = self._expected = 0.0
        self._sizes = sizes
        self._left = {} if sizes is None else dict(sizes.curves)
        self._bits = 0.0 if sizes is None else sizes.bits_of(size)

    @property
    def mean(self) -> float:
        """The geometric mean of the steps so far, by numbers."""
        return self._first * math.pow(2, self._octaves / max(1.0, self._numbers))

    def coded(self, name: str, integers: Tensor) -> None:
        """Count the bits of a tensor, and correct the step of the others."""
        self.deltas[name] = self.delta
        self._octaves += integers.numel() * math.log2(self.delta / self._first)
        self._numbers += integers.numel()
        if self._sizes is None or name not in self._left:
            return
        self._expected += self._sizes.bits_at(self.delta, self._left.pop(name))
        self._took += _entropy(_flat(integers))
        trusted = _TRUSTED * self._bits
        rest = total(self._left.values()) * (self._took + trusted) / (self._expected + trusted)
        if abs(self._took + self._sizes.bits_at(self.delta, rest) - self._bits) > _TOLERANCE * self._bits:
            ratio = self._sizes.delta_of(self._bits - self._took, rest) / self._first
            self.delta = self._first * min(max(ratio, 2**-_FURTHEST), 2**_FURTHEST)


def _curve(numbers: Tensor, rounded: Tensor, step: int, away: float) -> Floats:
    """The bits of a tensor at each of OCTAVES from a step that is `away` from its own."""
    integers = np.rint(_flat(rounded) / step_of(step))
    stride = max(1, len(integers) // _DRAWN)
    drawn = _flat(numbers)[::stride] / step_of(step)
    spread = max(0.0, float(np.square(integers[::stride] - drawn).mean()) - _UNIFORM) ** 0.5 if len(drawn) else 0.0
    noise = spread * np.random.default_rng(0).standard_normal(len(drawn))
    curve = np.array([_entropy(np.rint(drawn * 2.0**-octaves + noise)) for octaves in OCTAVES + away])
    own = _entropy(np.rint(drawn + noise))
    return curve * (_entropy(integers) / own if own else 1.0)


def _entropy(integers: Floats) -> float:
    """The bits of integers by the histogram of themselves."""
    counts = np.unique(integers.astype(np.int64), return_counts=True)[1]
    return float(-(counts * np.log2(counts / max(1, len(integers)))).sum())


def _flat(tensor: Tensor) -> Floats:
    flat: Floats = tensor.detach().reshape(-1).double().cpu().numpy()
    return flat
