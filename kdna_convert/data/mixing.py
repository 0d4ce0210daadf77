"""Images mixed in pairs, drawn by a seed and by no generator that goes on (Zhang et al. 2018, arXiv 1710.09412)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torchvision.transforms import v2


def mixer(alpha: float) -> Callable[[Tensor, str], Tensor]:
    """(inputs, seed) -> each input of the batch mixed with the one before it, by one draw of Beta(alpha, alpha).

    An alpha of 0 leaves them whole.
    """
    if not alpha:
        return lambda inputs, seed: inputs
    mix = v2.MixUp(alpha=alpha, num_classes=1)

    def mixed(inputs: Tensor, seed: str) -> Tensor:
        with drawing(seed):
            found: Tensor = mix(inputs, torch.zeros(len(inputs), dtype=torch.long))[0]  # it insists on labels
        return found

    return mixed


@dataclass(frozen=True)
class Mixed:
    """Batches of inputs, each mixed whenever it is asked for, by draws that are the seed's and its place's."""

    batches: Sequence[Tensor]
    alpha: float
    seed: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        mix = mixer(self.alpha)
        return (mix(batch, f"{self.seed} {place}") for place, batch in enumerate(self.batches))


@contextmanager
def drawing(seed: str) -> Iterator[None]:
    """torch draws by this seed, and goes on afterwards as if it had not."""
    with torch.random.fork_rng(devices=[]):
        # of a generator on the CPU, torch reads 32 bits of the seed
        torch.default_generator.manual_seed(Random(seed).getrandbits(32))
        yield
