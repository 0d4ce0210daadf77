"""Train the integers of a coded net without making its file larger.

A coded tensor is integers times a step. The optimizer updates a real number behind each integer, which starts at the
integer's value. The net runs on the nearest integers, and their gradient is used for the real numbers
(straight-through estimator: Bengio et al. 2013, arXiv 1308.3432; as in BinaryConnect, arXiv 1511.00363). So an integer
changes only after many steps in the same direction.

Every integer has a price: the bits that one more in magnitude would take, which the coder estimates from the means of
its row and its column (codecs/expectation.py). The price pulls the real numbers towards zero. It is adjusted in every
step so that the total number of bits stays close to that at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .training_state import assign

# The least magnitude that is expected of an integer, as a share of its tensor's mean.
_LEAST = 0.05
# The price changes by a factor of e in _FOLLOWS steps for each percent of difference between the bits and their target,
# _AIM times the bits at the start.
_FOLLOWS, _AIM = 200, 0.997
# A number this close to zero, in units of an integer, is not pulled: its sign would flip in every step.
_ASLEEP = 0.02


@dataclass
class Codes:
    """The coded tensors that are trained.

    Attributes:
        tensors: The tensors by name.
        steps: The quantization step of each.
        fits: Whether the rounded net takes no more bytes than allowed.
        price: The cost of a bit, in units of the loss.
        bits: The estimated bits of all tensors at the start.
    """

    tensors: Mapping[str, nn.Parameter]
    steps: Mapping[str, float]
    fits: Callable[[], bool]
    price: float = 0.0
    bits: float = field(init=False)

    def __post_init__(self) -> None:
        self.bits = sum(float(_bits(self._integers(name))[0]) for name in self.tensors)

    @property
    def ids(self) -> Set[int]:
        return {id(tensor) for tensor in self.tensors.values()}

    def step_of(self, tensor: Tensor) -> float | None:
        """The quantization step of a tensor, None if it is not coded."""
        return next((self.steps[name] for name, own in self.tensors.items() if own is tensor), None)

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Inside the context, the net runs on the rounded values."""
        now = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self.round_in_place()
        try:
            yield
        finally:
            assign(self.tensors, now)

    def round_in_place(self) -> None:
        """Round every number to its nearest integer, in place."""
        assign(self.tensors, {name: self._values(self._integers(name), name) for name in self.tensors})

    def charge(self, loss: float) -> None:
        """Add the gradient of the bits' cost to the gradients in place, then adjust the price.

        The first price makes the cost of all bits equal to the loss.
        """
        self.price = self.price or abs(loss) / max(self.bits, 1.0)
        total = 0.0
        for name, tensor in self.tensors.items():
            bits, slope_oi = _bits(self._integers(name))
            total += float(bits)
            units = tensor.detach() / self.steps[name]
            pull = torch.where(units.abs() > _ASLEEP, units.sign(), 0) * slope_oi.to(units).view_as(units)
            if tensor.grad is not None:
                tensor.grad.add_(pull, alpha=self.price / self.steps[name])
        self.price *= math.exp((total / max(self.bits, 1.0) - _AIM) * 100 / _FOLLOWS)

    def _integers(self, name: str) -> Tensor:
        return (self.tensors[name].detach().double() / self.steps[name]).round()

    def _values(self, integers: Tensor, name: str) -> Tensor:
        return (integers * self.steps[name]).float()


def _bits(integers: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate the bits that integers take, and (rows, columns) the bits that one more in magnitude would take.

    Magnitudes are geometrically distributed, with the product of the row's and the column's mean; a sign takes a bit.
    """
    size_oi = integers.abs().flatten(1) if integers.ndim > 1 else integers.abs()[None]
    mean = size_oi.mean().clamp_min(1e-6)
    expected_oi = size_oi.mean(1, keepdim=True) * size_oi.mean(0, keepdim=True) / mean
    expected_oi = expected_oi.clamp_min(_LEAST * mean)
    more_oi = ((1 + expected_oi) / expected_oi).log2()
    bits = (size_oi * more_oi + (1 + expected_oi).log2() + (size_oi > 0)).sum()
    return bits, more_oi + (size_oi == 0)
