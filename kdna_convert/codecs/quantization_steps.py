"""entropy: multiples of one step for each tensor, entropy coded: numbers near zero take almost no bytes.

Steps lie on a grid, 2^(k / 64), so that a step is a small integer k. The scales of normalizations, by which channels
are multiplied, are stored as integers of their logarithm, and signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.errors import NumericsError
from ..core.specs import Shape
from .codec import Codec, Quantized
from .entropy import LARGEST, decode, encode
from .expectation import Integers

# Grid steps to the octave: fine enough to reach a given file size, coarse enough for two digits.
PER_OCTAVE = 64
# Factors to the octave: the error is within 2.2 %, which the weights that a factor multiplies can correct.
FACTORS = 16


def step_of(number: int) -> float:
    """The step of a grid number."""
    return float(2.0 ** (number / PER_OCTAVE))


def nearest_step(step: float) -> int:
    """The grid number of the step nearest to a positive one, by ratio."""
    return round(PER_OCTAVE * math.log2(step))


@dataclass(frozen=True)
class Entropy(Codec):
    """Integers round(x / step) through the adaptive coder. `steps` holds each tensor's grid number."""

    name: ClassVar[str] = "entropy"

    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        return encode([self.integers(*one) for one in zip(tensors, steps, strict=True)])

    def decode(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Tensor]:
        return [values(integers, step) for integers, step in zip(decode(data, shapes), steps, strict=True)]

    def quantized(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Quantized]:
        """One step for each tensor."""
        pairs = zip(decode(data, shapes), steps, strict=True)
        return [Quantized(torch.from_numpy(integers), torch.tensor(step_of(step))) for integers, step in pairs]

    def bound(self, tensor: Tensor, step: int) -> Tensor:
        """Half a step, and the rounding error of float32."""
        return (step_of(step) * 0.5 + tensor.abs().double() * 2.0**-22).float()

    def integers(self, tensor: Tensor, step: int) -> Integers:
        """The integers of a tensor. Raises NumericsError KD704 if the step is too fine for its largest number."""
        rounded = (tensor.detach().double() / step_of(step)).round()
        if rounded.numel() and float(rounded.abs().max()) >= LARGEST:
            largest = float(tensor.abs().max())
            raise NumericsError("KD704", f"a number of {largest:.2g} is {LARGEST:,} steps or more; use --codec bf16")
        return rounded.to(torch.int32).cpu().numpy().astype(np.int32)


def values(integers: Integers, step: int) -> Tensor:
    """The numbers of integers at a step, float32: each is the float nearest to the exact product."""
    floats = np.empty(integers.shape, np.float32)
    with np.errstate(over="ignore"):  # a product beyond float32 is infinite
        np.multiply(integers, step_of(step), out=floats, dtype=np.float64, casting="same_kind")  # no array of doubles
    return torch.from_numpy(floats)


def scale_integers(scale: Tensor) -> tuple[Integers, Integers]:
    """Factors as logarithms, 16 to the octave, and signs (1: negative). Zeros become tiny."""
    size = (
        scale.detach().double().abs().clamp_min(float(scale.abs().max()) * 2.0**-24 + torch.finfo(torch.float32).tiny)
    )
    logarithm = (FACTORS * size.log2()).round().to(torch.int32).cpu().numpy().astype(np.int32)
    return logarithm, (scale < 0).to(torch.int32).cpu().numpy().astype(np.int32)


def scale_values(logarithm: Integers, sign: Integers) -> Tensor:
    """The inverse of scale_integers, within 2.2 % of each factor; float32."""
    size = (torch.from_numpy(logarithm).double() / FACTORS).exp2()
    return torch.where(torch.from_numpy(sign).bool(), -size, size).float()
