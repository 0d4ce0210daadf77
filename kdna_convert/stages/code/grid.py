"""Tensors of a net put on the grid of a step, in place: what is stored afterwards is exactly what decoding gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...codecs.steps import step_of
from ...network.norms import norm_affine, plain_norm


def put_on_grid(tensor: Tensor, number: int) -> None:
    """Round to multiples of the step of that number."""
    put_integers(tensor, (tensor.detach().double() / step_of(number)).round(), number)


def put_integers(tensor: Tensor, integers: Tensor, number: int) -> None:
    """Store these multiples of the step: the floats nearest to the exact products."""
    with torch.no_grad():
        tensor.copy_((integers * step_of(number)).view(tensor.shape).float())


def put_norm(norm: Any, scale: Tensor, shift: Tensor) -> None:
    """A batch normalisation that scales and shifts by these, its statistics being 0 and 1."""
    with torch.no_grad():
        for name, value in plain_norm(scale.float(), shift.float(), norm.eps).items():
            getattr(norm, name).copy_(value)


def put_shift(norm: Any, number: int) -> None:
    """Round a plain normalisation's shifts to multiples of the step of that number."""
    scale, shift = norm_affine(norm)
    put_norm(norm, scale, (shift / step_of(number)).round() * step_of(number))
