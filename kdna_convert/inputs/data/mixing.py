"""Mixup: images mixed in pairs (Zhang et al. 2018, arXiv 1710.09412). Every draw depends on its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint
from random import Random

import torch
from torch import Tensor
from torch.distributions import Beta


def mixer(alpha: float, each: bool = True) -> Callable[[Tensor, str], Tensor]:
    """A function (inputs, seed) -> inputs, each mixed with the one before it in the batch.

    The share is a draw of Beta(alpha, alpha), one for each input or, without `each`, one for the batch. With an alpha
    of 0 the inputs are unchanged.
    """
    if not alpha:
        return lambda inputs, seed: inputs
    beta = Beta(torch.tensor(alpha), torch.tensor(alpha))

    def mixed(inputs: Tensor, seed: str) -> Tensor:
        with seeded(seed):
            share_b = beta.sample((len(inputs) if each else 1,))
        before = inputs.roll(1, 0)
        if each:
            return before.lerp(inputs, share_b.to(inputs).view(-1, *(1,) * (inputs.ndim - 1)))
        share = float(share_b)
        # equal to torchvision's MixUp to the bit, which takes images only
        return before.mul(1 - share).add(inputs.mul(share))

    return mixed


@dataclass(frozen=True)
class Mixed:
    """Batches of inputs, mixed in every pass by draws that depend on the seed and the batch's number only."""

    batches: Iterable[Tensor]
    alpha: float
    seed: int
    each: bool = True

    def __length_hint__(self) -> int:
        return length_hint(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        mix = mixer(self.alpha, self.each)
        return (mix(batch, f"{self.seed} {number}") for number, batch in enumerate(self.batches))


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Seed torch's CPU generator inside the block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch uses 32 bits of the seed of a CPU generator
        torch.default_generator.manual_seed(Random(seed).getrandbits(32))
        yield
