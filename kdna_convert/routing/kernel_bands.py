"""A kernel's spectrum in bands: kernels of the same shape that sum to it and have no frequency in common.

The spectrum is that of the kernel as an (out taps) x (in taps) matrix, its bins ordered by radial frequency. A half
spectrum has columns that are their own mirror image: they contain each bin and its conjugate. The two belong to
the same band. FDConv's release separates some of these pairs, which leaves the frequency in both bands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.specs import Shape, product


def frequency_count(shape: Shape) -> int:
    """The number of frequencies in a kernel's matrix. A bin and its conjugate count once."""
    rows, width = _matrix(shape)
    return len(_edges(width)) * (rows // 2 + 1) + (width // 2 + 1 - len(_edges(width))) * rows


def bands_of(shape: Shape, bands: int) -> Tensor:
    """The band of each bin of a kernel's half spectrum: equally many frequencies each, the lowest in band 0."""
    rows, width = _matrix(shape)
    half, edges = rows // 2 + 1, _edges(width)
    radius = torch.hypot(torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(width))
    radius[half:, edges] = torch.inf
    order = radius.flatten().argsort(stable=True)[: frequency_count(shape)]
    bins = torch.zeros(radius.numel(), dtype=torch.int32)
    for band, members in enumerate(order.tensor_split(bands)):
        bins[members] = band
    bins = bins.view_as(radius)
    bins[half:, edges] = bins[1 : rows - half + 1].flip(0)[:, edges]
    return bins


def split_bands(weight: Tensor, bins: Tensor, bands: int) -> Tensor:
    """The bands of a kernel, (bands, *shape), which sum to it: the last is the rest of the others. At least float32."""
    if bands == 1:
        return weight[None]
    outs, ins, *rest, last = weight.shape
    matrix = weight.movedim(1, -2).reshape(-1, ins * last)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    chosen = bins == torch.arange(bands - 1, device=bins.device).view(-1, 1, 1)
    parts = torch.fft.irfft2(torch.fft.rfft2(matrix) * chosen, s=matrix.shape)
    parts = torch.cat([parts, (matrix - parts.sum(0))[None]]).to(weight.dtype)
    return parts.view(bands, outs, *rest, ins, last).movedim(-2, 2)


def _matrix(shape: Shape) -> tuple[int, int]:
    """The size of the matrix that is transformed: (out x all taps but the last axis', in x the last axis')."""
    return product((shape[0], *shape[2:-1])), shape[1] * shape[-1]


def _edges(width: int) -> list[int]:
    """The columns of a half spectrum that contain their own conjugates: the first, and the last of an even width."""
    return [0] if width % 2 else [0, width // 2]
