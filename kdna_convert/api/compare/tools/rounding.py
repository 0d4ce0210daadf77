"""Plain rounding: fp16, or int8 and int4 with a scale per output channel. It needs only torch.

Integers are from torch's fake_quantize_per_channel_affine, symmetric, with scale = largest weight / largest integer.
torchao quantizes only Linear layers, so it is not used for convolutional nets. The file holds the integers (two per
byte for int4), an fp32 scale per channel, and all other tensors unchanged.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ....core.filesize import file_size
from ....core.specs import TensorSpec
from ....network.stored import stored_specs
from ....network.totals import DENSE_METADATA
from ..peers import PEERS
from ..tool_run import Candidate, ToolRun, written_bytes

FLOATS = ("F32", "F64")


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """The net with rounded weights. It computes in fp32."""
    bits = int(PEERS[tool_run.peer].option)
    return _halved(net) if bits == 16 else _rounded(net, bits)


def _halved(net: nn.Module) -> Candidate:
    halves = {spec.name: TensorSpec(spec.name, spec.shape, "F16") for spec in stored_specs(net) if spec.dtype in FLOATS}
    size = written_bytes(net, halves)
    return Candidate(net.half().float(), bytes=size)


def _rounded(net: nn.Module, bits: int) -> Candidate:
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, (_ConvNd, nn.Linear))}
    specs = {spec.name: spec for spec in stored_specs(net)}
    for name, layer in layers.items():
        weight = layer.weight
        weight.data = round_channels(weight.data, bits)
        key = f"{name}.weight" if name else "weight"
        if key in specs:
            elements = prod(weight.shape)
            packed = (
                TensorSpec(key, (-(-elements // 2),), "U8") if bits == 4 else TensorSpec(key, tuple(weight.shape), "I8")
            )
            scale = f"{key}_scale"
            specs |= {key: packed, scale: TensorSpec(scale, (len(weight),))}
    return Candidate(net, bytes=file_size(list(specs.values()), DENSE_METADATA))


def round_channels(weight: Tensor, bits: int) -> Tensor:
    """Round a weight (out, ...) to integers |q| < 2^(bits-1) times the scale of the output channel."""
    top = 2 ** (bits - 1) - 1
    scale = weight.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / top
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top, top)
