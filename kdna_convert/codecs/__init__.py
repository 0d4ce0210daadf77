"""How stored tensors become bytes: the table of codecs and the interface each of them signs.

A codec takes all tensors that it is to code at once: one that learns from them learns more from many. Tensors are
float32 and finite (NaN is refused before: container.py). See tests/test_codecs.py for the laws every codec obeys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from ..core.specs import Shape
from .floats import BFloat16, Float16
from .integers import Int4, Int8
from .steps import Entropy


class Codec(Protocol):
    """`steps` has a number for each tensor, which only `entropy` heeds: that of its step (steps.py)."""

    name: ClassVar[str]

    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        """The tensors as bytes. Raises NumericsError KD704 for numbers that are too large for the codec."""
        ...

    def decode(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Tensor]:
        """The tensors, float32. Raises FolderError KD608 where the length or the stream does not fit the shapes."""
        ...

    def bound(self, tensor: Tensor, step: int) -> Tensor:
        """How far each decoded number may be from the one encoded."""
        ...


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float16(), BFloat16(), Int8(), Int4(), Entropy())}
