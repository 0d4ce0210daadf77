"""AIMET's spatial SVD: a 3x3 kernel becomes a 3x1 and a 1x3 kernel, at the same ratio in every layer (manual mode)."""

from __future__ import annotations

import os
import tempfile
from decimal import Decimal
from typing import Any

from aimet_torch.common.defs import CompressionScheme, CostMetric
from aimet_torch.compress import ModelCompressor
from aimet_torch.defs import ModuleCompRatioPair, SpatialSvdParameters
from torch import Tensor, nn

from ..tool_run import Candidate, ToolRun, count, plain_convs
from .largest_share import largest_share


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """Split the layers at the largest ratio that fits the budget."""
    convs = list(plain_convs(net, tool_run.layers).values())
    shape = (1, *images.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # AIMET writes a folder `data` to the working directory
        share = largest_share(lambda ratio: count(_split(net, convs, ratio, shape)), tool_run.limit)
        split = _split(net, convs, share, shape)
        os.chdir("/")
    return Candidate(split)


def _split(net: nn.Module, convs: list[nn.Conv2d], ratio: float, shape: tuple[int, ...]) -> nn.Module:
    pairs = [ModuleCompRatioPair(conv, Decimal(str(ratio))) for conv in convs]
    manual = SpatialSvdParameters.ManualModeParams(pairs)
    parameters = SpatialSvdParameters(SpatialSvdParameters.Mode.manual, manual)
    result: Any = ModelCompressor.compress_model(
        net, _unscored, 1, shape, CompressionScheme.spatial_svd, CostMetric.memory, parameters
    )
    split: nn.Module = result[0]
    return split


def _unscored(model: nn.Module, iterations: int, use_cuda: bool) -> float:
    """AIMET prints a score; in manual mode it does not use it."""
    return 0.0
