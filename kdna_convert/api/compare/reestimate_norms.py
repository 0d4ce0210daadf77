"""Re-estimate batch-norm statistics, as an experienced user does after a tool that uses no data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...core.modes import eval_mode

BATCH = 125


def has_statistics(net: nn.Module) -> bool:
    """Whether the net has batch norms with running statistics."""
    return any(_norms(net))


def reestimate(net: nn.Module, images: Tensor, batch: int = BATCH) -> nn.Module:
    """Set every batch norm's running mean and variance to its average over the batches, in place; returns the net.

    images (N, C, H, W). Only the batch norms run in train mode, so that dropout stays off. All modes are restored.
    """
    norms = _norms(net)
    momenta = [norm.momentum for norm in norms]
    with eval_mode(net), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # in torch, None is a cumulative average
            norm.train()
        for part in images.split(batch):
            net(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
