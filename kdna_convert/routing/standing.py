"""Where a router can stand: None, or the KD1xx code that says why it cannot."""

from __future__ import annotations

from ..core.specs import Layer
from .modulation import is_exact

# Layers whose forward pass, as far as the survey saw, takes no input that a router could look at.
_UNREACHABLE = frozenset({"KD104", "KD107", "KD111", "KD112"})


def can_gate(layer: Layer) -> str | None:
    """For a router that scales what goes into the layer and comes out of it: any layer that runs on a tensor."""
    return "KD113" if layer.reason in _UNREACHABLE else None


def can_mix(layer: Layer) -> str | None:
    """For one that gives each image a kernel of its own: a convolution that does nothing else with its kernel."""
    return can_gate(layer) or (None if is_exact(layer.kind) else "KD131")
