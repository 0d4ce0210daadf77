"""Which layers a router supports: None, or the KD1xx code of the reason why not."""

from __future__ import annotations

from ..core.specs import Layer

# Reasons of layers for which the survey saw no input tensor that a router could read.
_UNREACHABLE = frozenset({"KD104", "KD107", "KD111", "KD112", "KD120"})
# Classes that multiply patches by their kernel, and do nothing else with it.
_EXACT = ("Conv1d", "Conv2d", "Conv3d", "Conv2dSame")


def can_gate(layer: Layer) -> str | None:
    """For routers that scale a layer's inputs and outputs: any layer that runs on a tensor."""
    return "KD113" if layer.reason in _UNREACHABLE else None


def can_mix(layer: Layer) -> str | None:
    """For routers that give each image its own kernel: a convolution that is_exact."""
    return can_gate(layer) or (None if is_exact(layer.kind) else "KD131")


def is_exact(kind: str) -> bool:
    """Whether a layer of this class multiplies patches by its kernel, and does nothing else with it."""
    return kind in _EXACT
