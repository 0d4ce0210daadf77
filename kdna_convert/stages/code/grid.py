"""Round tensors of a net to multiples of a step, in place: they then equal what decoding gives, to the bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...codecs.quantization_steps import step_of
from ...network.batch_norm import norm_affine, plain_norm


def put_on_grid(tensor: Tensor, number: int) -> None:
    """Round to multiples of the step with that number."""
    put_integers(tensor, (tensor.detach().double() / step_of(number)).round(), number)


def put_integers(tensor: Tensor, integers: Tensor, number: int) -> None:
    """Store these multiples of the step, as the nearest floats."""
    with torch.no_grad():
        tensor.copy_((integers * step_of(number)).view(tensor.shape).float())


def put_norm(norm: Any, scale: Tensor, shift: Tensor) -> None:
    """Set a batch normalization to this scale and shift, with statistics 0 and 1."""
    with torch.no_grad():
        for name, value in plain_norm(scale.float(), shift.float(), norm.eps).items():
            getattr(norm, name).copy_(value)


def put_shift(norm: Any, number: int) -> None:
    """Round the shifts of a plain normalization to multiples of the step with that number."""
    scale, shift = norm_affine(norm)
    put_norm(norm, scale, (shift / step_of(number)).round() * step_of(number))
