"""Moments without an image: those of synthetic 1/f noise, half-way to independence.

Natural images have amplitude falling as 1/f (Field 1987) and channels that mostly agree; the net's own weights and
batch norms turn such noise into activations not far from real ones. Measured on six layers of a CIFAR ResNet-56, kept
at half their parameters by low rank (mean relative output error on real images): moments of 1,000 images 0.094, of
noise half-way to independence 0.126, of noise alone 0.164, of the identity 0.177, of a rectified Gaussian given by the
batch norm before the layer 0.176 (0.155 half-way). So no images costs a third more error, and plain weight error twice
that. The sensitivities, too, are near the real ones (correlation of logarithms 0.95 over the net's 56 layers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...core.linalg import Kronecker, Moment
from ...core.specs import Layer, Progress, Shape
from .collect import Sampling, collect
from .moments import Moments

_AGREEMENT = 0.9  # the share of a pixel's variance that its channels have in common
_NEIGHBOURS = 0.5  # how a tap correlates with the next; with one further by the square
_BATCH = 32


def data_free(
    model: nn.Module,
    layers: Sequence[Layer],
    input_size: Shape,
    *,
    images: int = 256,
    memory: int = 4 * 2**30,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Moments:
    """Moments as `collect` gives them, from noise of `input_size` (channels, *size) instead of images; counts are 0.

    Raises what `collect` raises.
    """
    noise = list(_noise(input_size, images, seed))
    collected = collect(
        model, layers, noise, memory=memory, sampling=Sampling(seed=seed), device=device, progress=progress
    )
    shapes = {layer.name: layer.shape for layer in layers}
    return {
        name: replace(item, second=towards_independence(item.second, shapes[name][2:]), count=0)
        for name, item in collected.items()
    }


def towards_independence(moment: Moment, kernel_size: Shape) -> Moment:
    """Half the moment, half independent channels of the same mean energy whose taps correlate by 0.5 a step."""
    taps_tt = torch.ones(1, 1)
    for size in kernel_size:
        steps = (torch.arange(size)[:, None] - torch.arange(size)).abs()
        taps_tt = torch.kron(taps_tt, _NEIGHBOURS**steps)
    if isinstance(moment, Kronecker):
        energy = moment.taps_tt.diagonal().mean()
        return Kronecker(_halfway(moment.channels_cc, torch.ones(1, 1)), (moment.taps_tt + energy * taps_tt) / 2)
    return _halfway(moment, taps_tt)


def _halfway(moment_nn: Tensor, taps_tt: Tensor) -> Tensor:
    channels = len(moment_nn) // len(taps_tt)
    return (moment_nn + moment_nn.diagonal().mean() * torch.kron(torch.eye(channels), taps_tt)) / 2


def _noise(input_size: Shape, images: int, seed: int) -> Iterator[Tensor]:
    """Batches of images of amplitude 1/f, unit variance and zero mean a channel, as normalised inputs nearly have."""
    channels, *size = input_size
    axes = tuple(range(2, 2 + len(size)))
    frequency = torch.zeros(())
    for points in size:
        frequency = (frequency[..., None] ** 2 + torch.fft.fftfreq(points) ** 2).sqrt()
    floor = 1 / max(size, default=1)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, images, _BATCH):
        count = min(_BATCH, images - start)
        common = torch.randn(count, 1, *size, generator=generator)
        own = torch.randn(count, channels, *size, generator=generator)
        white = _AGREEMENT**0.5 * common + (1 - _AGREEMENT) ** 0.5 * own
        pink = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) / frequency.clamp_min(floor), dim=axes).real
        pink = pink - pink.mean(axes, keepdim=True)
        yield pink / pink.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-6)
