"""NNCodec, Fraunhofer's encoder of ISO/IEC 15938-17, without data, at the finest step whose bitstream fits the budget.

The step is its integer `qp`; a larger one is coarser. All other settings are the defaults (dependent quantization,
parameter search).
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left

import numpy as np
import torch
from nncodec import nn as codec
from numpy.typing import NDArray
from torch import Tensor, nn

from ....core.errors import PlanError
from ..tool_run import Candidate, ToolRun, count

QPS = range(-48, 1)  # -48 is finer than eight bits, 0 leaves almost nothing


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """The decoded net; its size is that of the bitstream."""
    state = net.state_dict()
    coded = {name: tensor.numpy() for name, tensor in state.items() if tensor.ndim and tensor.is_floating_point()}
    place = bisect_left(QPS, True, key=lambda qp: len(_encode(coded, qp)) <= tool_run.limit)
    if place == len(QPS):
        raise PlanError("KD501", f"its coarsest bitstream is larger than {tool_run.limit:,} bytes")
    stream = _encode(coded, QPS[place])
    decoded = codec.decode(stream)
    net.load_state_dict(
        {
            name: torch.from_numpy(np.asarray(decoded[name])).to(tensor.dtype).view_as(tensor)
            if name in coded
            else tensor
            for name, tensor in state.items()
        }
    )
    return Candidate(net, params=count(net), bytes=len(stream))


def _encode(coded: dict[str, NDArray[np.float32]], qp: int) -> bytearray:
    with tempfile.TemporaryDirectory() as folder:  # the encoder writes its bitstream there
        stream: bytearray = codec.encode(coded, {"results": folder, "qp": qp, "verbose": False})
    return stream
