"""Training the integers of a coded net, in the bytes that it has.

A coded tensor is integers times a step. What the optimizer moves is a real number behind each, which begins where the
integer is; the net runs on the nearest integers, and their gradient is taken for that of the numbers (straight-through:
Bengio et al. 2013, arXiv 1308.3432, as BinaryConnect arranges it, arXiv 1511.00363). So an integer changes once many
steps have agreed on it.

Every integer has a price in bits, and the file is not to grow: what one more in magnitude would take, as the coder sees
it (by the mean of its row and of its column; codecs/expectation.py), pulls the numbers towards zero, as strongly as
keeps the bits of the whole at what they were at the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .training_state import assign

# Of one more in magnitude, an integer's place is expected to hold at least this share of its tensor's mean.
_LEAST = 0.05
# How fast the price follows: by e in so many steps for each percent that the bits are off what is aimed at, a share of
# those at the start.
_FOLLOWS, _AIM = 200, 0.997
# From zero, a number is not pulled: a sign that flips with every step would be all that comes of it.
_ASLEEP = 0.02


@dataclass
class Codes:
    """`tensors` by name with `steps`, the size of one integer of each; `fits` says whether the net, rounded, takes no
    more bytes than it may. `price` is what a bit costs, in the loss."""

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
        """The size of one integer, None for a tensor that is not coded."""
        return next((self.steps[name] for name, own in self.tensors.items() if own is tensor), None)

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """The net on its integers, for as long as the context lasts."""
        now = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self.round_in_place()
        try:
            yield
        finally:
            assign(self.tensors, now)

    def round_in_place(self) -> None:
        """Every number to its nearest integer, in place."""
        assign(self.tensors, {name: self._values(self._integers(name), name) for name in self.tensors})

    def charge(self, loss: float) -> None:
        """Add to the gradients what the bits cost; then the price follows how many they are.

        The first price makes all the bits there are cost what the loss is.
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
    """About what these integers take, and (rows x columns) what one more in the magnitude of each would: a geometric
    distribution of the magnitudes and a bit for a sign, the mean that of the row times that of the column."""
    size_oi = integers.abs().flatten(1) if integers.ndim > 1 else integers.abs()[None]
    mean = size_oi.mean().clamp_min(1e-6)
    expected_oi = size_oi.mean(1, keepdim=True) * size_oi.mean(0, keepdim=True) / mean
    expected_oi = expected_oi.clamp_min(_LEAST * mean)
    more_oi = ((1 + expected_oi) / expected_oi).log2()
    bits = (size_oi * more_oi + (1 + expected_oi).log2() + (size_oi > 0)).sum()
    return bits, more_oi + (size_oi == 0)
