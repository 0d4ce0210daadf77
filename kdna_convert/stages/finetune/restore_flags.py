"""Restore everything that training changes in a net except its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...core.modes import eval_mode


@contextmanager
def restored_flags(*nets: nn.Module) -> Iterator[None]:
    """Eval mode inside the context; on exit modes, requires_grad, gradients and forward methods are restored."""
    flags = [(parameter, parameter.requires_grad, parameter.grad) for net in nets for parameter in net.parameters()]
    forwards = [(net, net.__dict__.get("forward")) for net in nets]
    try:
        with eval_mode(*nets):
            yield
    finally:
        for parameter, requires_grad, gradient in flags:
            parameter.requires_grad_(requires_grad).grad = gradient
        for net, forward in forwards:  # Accelerate replaces it for mixed precision
            attributes: dict[str, Any] = net.__dict__
            for name in ("forward", "_original_forward"):
                attributes.pop(name, None)
            if forward is not None:
                attributes["forward"] = forward
