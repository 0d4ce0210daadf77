"""Images mixed in pairs, drawn by a seed and by no generator that goes on (Zhang et al. 2018, arXiv 1710.09412)."""

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
    """(inputs, seed) -> each input of the batch mixed with the one before it, by its own draw of Beta(alpha, alpha) or,
    without `each`, by one draw for all. An alpha of 0 leaves them whole.
    """
    if not alpha:
        return lambda inputs, seed: inputs
    beta = Beta(torch.tensor(alpha), torch.tensor(alpha))

    def mixed(inputs: Tensor, seed: str) -> Tensor:
        with drawing(seed):
            share_b = beta.sample((len(inputs) if each else 1,))
        before = inputs.roll(1, 0)
        if each:
            return before.lerp(inputs, share_b.to(inputs).view(-1, *(1,) * (inputs.ndim - 1)))
        share = float(share_b)
        return before.mul(1 - share).add(
            inputs.mul(share)
        )  # to the bit as torchvision's MixUp, which is for images alone

    return mixed


@dataclass(frozen=True)
class Mixed:
    """Batches of inputs, each mixed whenever it is asked for, by draws that are the seed's and its place's."""

    batches: Iterable[Tensor]
    alpha: float
    seed: int
    each: bool = True

    def __length_hint__(self) -> int:
        return length_hint(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        mix = mixer(self.alpha, self.each)
        return (mix(batch, f"{self.seed} {place}") for place, batch in enumerate(self.batches))


@contextmanager
def drawing(seed: str) -> Iterator[None]:
    """torch draws by this seed, and goes on afterwards as if it had not."""
    with torch.random.fork_rng(devices=[]):
        # of a generator on the CPU, torch reads 32 bits of the seed
        torch.default_generator.manual_seed(Random(seed).getrandbits(32))
        yield
