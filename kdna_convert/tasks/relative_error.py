"""The relative error of output tensors, which every task measures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import ModelError
from .task import Outputs, Statistics

_LEAST = torch.finfo(torch.float64).tiny


def require_same_shapes(outputs: Outputs, targets: Outputs) -> None:
    """Raise ModelError KD308 for outputs that cannot be compared."""
    shapes, shapes0 = ([tuple(each.shape) for each in side] for side in (outputs, targets))
    if shapes != shapes0:
        raise ModelError(
            "KD308",
            f"outputs of shapes {_listed(shapes)} and {_listed(shapes0)} cannot be compared; are they of the same "
            "images?",
        )


def errors(outputs: Outputs, targets: Outputs) -> Statistics:
    """|z - z0|^2 and |z0|^2 of every image and tensor: `error` and `energy`, (images, tensors)."""
    require_same_shapes(outputs, targets)
    pairs = [(z.double().flatten(1), z0.double().flatten(1)) for z, z0 in zip(outputs, targets, strict=True)]
    return {
        "error": torch.stack([(z - z0).square().sum(1) for z, z0 in pairs], 1).cpu(),
        "energy": torch.stack([z0.square().sum(1) for _, z0 in pairs], 1).cpu(),
    }


def relative_error(statistics: Statistics) -> float:
    """|z - z0|^2 / |z0|^2 over all images, the mean over the tensors; |z - z0|^2 of one that is 0 in the original."""
    error, energy = statistics["error"].sum(0), statistics["energy"].sum(0)
    return float(torch.where(energy > 0, error / energy.clamp(min=_LEAST), error).mean())


def relative_loss(outputs: Outputs, targets: Outputs) -> Tensor:
    """The same, differentiable, in the outputs' type."""
    require_same_shapes(outputs, targets)
    pairs = zip(outputs, targets, strict=True)
    return torch.stack([(z - z0).square().sum() / z0.square().sum().clamp_min(1e-30) for z, z0 in pairs]).mean()


def sampled_values(outputs: Outputs, generator: torch.Generator) -> Tensor | None:
    """The outputs times standard normal noise, each tensor by its energy: the curvature of `relative_loss`."""
    parts = []
    for z in outputs:
        if z.requires_grad:
            noise = torch.randn(z.shape, generator=generator).to(z.device)
            parts.append((noise * z.float()).sum() / z.detach().float().square().sum().clamp_min(1e-30).sqrt())
    return torch.stack(parts).sum() if parts else None


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
