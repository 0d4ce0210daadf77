"""Batch normalization in eval mode: a scale and a shift per channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NORM_FLOATS = ("weight", "bias", "running_mean", "running_var")
NORM_COUNT = "num_batches_tracked"


def is_batch_norm(module: nn.Module) -> bool:
    """Whether, in eval mode, a module scales and shifts channels by statistics that it stores."""
    return isinstance(getattr(module, "running_mean", None), Tensor) and isinstance(module.running_var, Tensor)


def norm_affine(norm: Any) -> tuple[Tensor, Tensor]:
    """(scale, shift), one value per channel, float64, detached: what a batch normalization does in eval mode."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def foldable_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Batch normalizations that a scale and a shift per channel can replace: all five tensors, float32."""
    norms: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.eps < 1:
            tensors = [getattr(module, part) for part in (*NORM_FLOATS, NORM_COUNT)]
            if all(isinstance(tensor, Tensor) for tensor in tensors) and tensors[0].dtype == torch.float32:
                norms[name] = module
    return norms


def plain_norm(scale: Tensor, shift: Tensor, eps: float) -> dict[str, Tensor]:
    """The tensors, float32, of a batch normalization with this scale and shift, mean 0 and variance 1."""
    mean, var = torch.zeros_like(scale), torch.full_like(scale, 1 - eps)
    count = torch.zeros((), dtype=torch.int64)
    return {"weight": scale.clone(), "bias": shift.clone(), "running_mean": mean, "running_var": var, NORM_COUNT: count}
