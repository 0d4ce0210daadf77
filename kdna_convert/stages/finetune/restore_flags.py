"""What training changes about a net besides its weights, put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...core.modes import eval_mode


@contextmanager
def untouched(*nets: nn.Module) -> Iterator[None]:
    """Eval mode; on leaving, modes, requires_grad and gradients are what they were."""
    flags = [(parameter, parameter.requires_grad, parameter.grad) for net in nets for parameter in net.parameters()]
    forwards = [(net, net.__dict__.get("forward")) for net in nets]
    try:
        with eval_mode(*nets):
            yield
    finally:
        for parameter, needed, gradient in flags:
            parameter.requires_grad_(needed).grad = gradient
        for net, forward in forwards:  # accelerate's, for mixed precision
            attributes: dict[str, Any] = net.__dict__
            for name in ("forward", "_original_forward"):
                attributes.pop(name, None)
            if forward is not None:
                attributes["forward"] = forward
