"""int8 and int4: symmetric rounding with one step for each output channel, whose largest weight is the largest integer.

A channel is a row of the tensor's first axis. Its step is stored as bfloat16, which has the range of fp32, rounded up
so that nothing is clipped. int4 holds -7..7, two to a byte. This is plain rounding: accuracy falls steeply at 4 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import FolderError
from ..core.specs import Shape, product
from .codec import Codec, Quantized

# The step of a channel of zeros: the smallest normal bfloat16.
_LEAST = torch.finfo(torch.bfloat16).tiny


@dataclass(frozen=True)
class Int8(Codec):
    """One byte per number, and two bytes per channel."""

    name: ClassVar[str] = "int8"
    largest: ClassVar[int] = 127

    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        return b"".join(map(self._encode, tensors))

    def decode(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Tensor]:
        return [integers.float() * step for integers, step in self.quantized(data, shapes, steps)]

    def quantized(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Quantized]:
        """One step for each row."""
        sizes = [2 * _rows(shape) + self.packed(product(shape)) for shape in shapes]
        if len(data) != sum(sizes):
            raise FolderError("KD608", "a coded stream has another length than its tensors; restore the file")
        pieces = zip(accumulate(sizes), sizes, shapes, strict=True)
        return [self._quantized(data[end - size : end], shape) for end, size, shape in pieces]

    def bound(self, tensor: Tensor, step: int) -> Tensor:
        """Half a step, and the rounding error of float32."""
        step_r1 = channel_steps(tensor, self.largest)
        return (step_r1 * (0.5 + 2e-5)).expand_as(_as_rows(tensor)).reshape(tensor.shape)

    def packed(self, count: int) -> int:
        """The bytes of this number of integers."""
        return count

    def pack(self, integers: Tensor) -> bytes:
        return integers.to(torch.int8).numpy().tobytes()

    def unpack(self, data: bytes, count: int) -> Tensor:
        return torch.frombuffer(bytearray(data), dtype=torch.int8)

    def _encode(self, tensor: Tensor) -> bytes:
        step_r1 = channel_steps(tensor, self.largest)
        integers = (_as_rows(tensor) / step_r1).round().clamp(-self.largest, self.largest)
        kept = step_r1.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        return kept + self.pack(integers.reshape(-1))

    def _quantized(self, data: bytes, shape: Shape) -> Quantized:
        rows, count = _rows(shape), product(shape)
        if not count:
            return Quantized(torch.zeros(shape, dtype=torch.int8), torch.ones(()))
        step_r = torch.frombuffer(bytearray(data[: 2 * rows]), dtype=torch.bfloat16).float()
        integers = self.unpack(data[2 * rows :], count).to(torch.int8).view(shape)
        return Quantized(integers, step_r.view(-1, *(1,) * (len(shape) - 1)) if len(shape) > 1 else step_r.view(()))


@dataclass(frozen=True)
class Int4(Int8):
    """Half a byte per number, and two bytes per channel."""

    name: ClassVar[str] = "int4"
    largest: ClassVar[int] = 7

    def packed(self, count: int) -> int:
        return (count + 1) // 2

    def pack(self, integers: Tensor) -> bytes:
        nibbles = torch.cat([integers, integers.new_zeros(len(integers) % 2)]).to(torch.int16) + 8
        pairs = nibbles.view(-1, 2)
        return (pairs[:, 0] + 16 * pairs[:, 1]).to(torch.uint8).numpy().tobytes()

    def unpack(self, data: bytes, count: int) -> Tensor:
        pairs = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(torch.int16)
        return torch.stack([pairs % 16, pairs // 16], 1).view(-1)[:count] - 8


def channel_steps(tensor: Tensor, largest: int) -> Tensor:
    """The step of each row of a tensor, (rows, 1) float32: a bfloat16 that is not below the exact step."""
    rows = _as_rows(tensor)
    exact = (F.pad(rows.abs(), (0, 1)).amax(1, keepdim=True) / largest).clamp_min(_LEAST)
    rounded = exact.to(torch.bfloat16)
    above = (rounded.view(torch.int16) + 1).view(torch.bfloat16)
    return torch.where(rounded.float() < exact, above, rounded).float()


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor.float().flatten(1) if tensor.ndim > 1 else tensor.float().view(1, -1)


def _rows(shape: Shape) -> int:
    """The number of channels: 1 for a vector or a scalar."""
    return shape[0] if len(shape) > 1 else 1
