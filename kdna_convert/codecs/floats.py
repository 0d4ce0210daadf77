"""fp16 and bf16, two bytes per number: fp16 is within 2^-11 of any number up to 65504, bf16 within 2^-8 of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import FolderError, NumericsError
from ..core.specs import Shape, product
from .codec import Codec

LARGEST = 65504.0
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Float16(Codec):
    """Two bytes per number, IEEE half precision. Numbers above 65504 are an error (KD704)."""

    name: ClassVar[str] = "fp16"

    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        for tensor in tensors:
            if tensor.numel() and float(tensor.abs().max()) > LARGEST:
                raise NumericsError("KD704", "a number is beyond 65504, the largest in fp16; use --codec bf16")
        return _bytes(tensors, _DTYPES[self.name])

    def decode(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Tensor]:
        dtype = _DTYPES[self.name]
        if len(data) != 2 * sum(map(product, shapes)):
            raise FolderError("KD608", "a coded stream has another length than its tensors; restore the file")
        flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return [part.float().view(shape) for part, shape in _split(flat, shapes)]

    def bound(self, tensor: Tensor, step: int) -> Tensor:
        return (tensor.abs() * 2.0**-11).clamp_min(2.0**-25)


@dataclass(frozen=True)
class BFloat16(Float16):
    """Two bytes per number, with the range of fp32 and 8 bits of precision."""

    name: ClassVar[str] = "bf16"

    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        largest = torch.finfo(torch.bfloat16).max
        return _bytes([tensor.float().clamp(-largest, largest) for tensor in tensors], torch.bfloat16)

    def bound(self, tensor: Tensor, step: int) -> Tensor:
        return (tensor.abs() * 2.0**-8).clamp_min(2.0**-133)


def _bytes(tensors: Sequence[Tensor], dtype: torch.dtype) -> bytes:
    parts = [tensor.detach().to(dtype).contiguous().view(torch.int16).numpy().tobytes() for tensor in tensors]
    return b"".join(parts)


def _split(flat: Tensor, shapes: Sequence[Shape]) -> list[tuple[Tensor, Shape]]:
    return list(zip(flat.split([product(shape) for shape in shapes]), shapes, strict=True)) if shapes else []
