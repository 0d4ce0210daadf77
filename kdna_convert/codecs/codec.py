"""The interface of a codec: how stored tensors become bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from ..core.specs import Shape


class Quantized(NamedTuple):
    """A tensor as integers times a step: `integers` has the tensor's shape, and `step`, float32, is broadcast to it."""

    integers: Tensor
    step: Tensor


class Codec(Protocol):
    """The interface of a codec. Derive from it.

    A codec encodes all tensors in one call, since an adaptive one codes better the more tensors it sees. Tensors are
    float32 and finite; NaN is refused earlier (network/packed.py). `steps` holds one number for each tensor, which only
    `entropy` uses: the tensor's quantization step (quantization_steps.py). The laws that each codec obeys are in
    tests/codecs/test_codec_laws.py.

    Attributes:
        name: The codec's name in recipes and files.
    """

    name: ClassVar[str]

    @abstractmethod
    def encode(self, tensors: Sequence[Tensor], steps: Sequence[int]) -> bytes:
        """Encode the tensors.

        Raises:
            NumericsError: KD704 for numbers that are too large for the codec.
        """

    @abstractmethod
    def decode(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Tensor]:
        """Decode tensors of these shapes, float32.

        Raises:
            FolderError: KD608 if the data does not fit the shapes, or is damaged.
        """

    def quantized(self, data: bytes, shapes: Sequence[Shape], steps: Sequence[int]) -> list[Quantized] | None:
        """The integers and steps whose products `decode` returns; None for a codec of floats. Raises as `decode`."""
        return None

    @abstractmethod
    def bound(self, tensor: Tensor, step: int) -> Tensor:
        """The largest error of each decoded number, in the shape of `tensor`."""
