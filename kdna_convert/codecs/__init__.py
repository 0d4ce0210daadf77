"""The codecs: how stored tensors become bytes. `CODECS` is the table, codec.py the interface."""

from __future__ import annotations

from .codec import Codec, Quantized
from .floats import BFloat16, Float16
from .integers import Int4, Int8
from .quantization_steps import Entropy

__all__ = ["CODECS", "Codec", "Quantized"]

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float16(), BFloat16(), Int8(), Int4(), Entropy())}
