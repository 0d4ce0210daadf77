"""The running sums of one layer during calibration.

Sums are float32: their relative error stays near 1e-6 (the tests allow 1e-5). Later factorizations use float64.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.linalg import Kronecker
from ...core.processes import all_sum, gather
from ...core.specs import Layer
from ...core.triangle import SquareSum, Triangle
from ...network.patches import choose, patches
from .moments import LayerMoments, MomentForm
from .similarity import centered_gram

# Images whose outputs are compared by CKA, and the cells to which each output is averaged along each axis.
EXAMPLES, _CELLS = 256, 2

# A block that says whether what it holds is new, and notes that it is done unless it raises.
Once = Callable[[], AbstractContextManager[bool]]


@dataclass(frozen=True)
class TallyForm:
    """What is summed for a layer: the form of its moment, and whether gradients of all pairs of output channels."""

    layer: Layer
    moment: MomentForm
    pairs: bool


class Tally:
    """Sums over the batches seen so far. Rows of patches are tap-major until `finish` puts channels first."""

    def __init__(self, form: TallyForm, device: torch.device) -> None:
        layer = form.layer
        self.layer, self.form, self.count = layer, form.moment, 0
        channels, taps = (layer.in_channels, layer.taps) if form.moment == "kronecker" else (layer.patch, 0)
        self.square = SquareSum(channels, device)
        self.taps_tt = torch.zeros(taps, taps, device=device)
        self.sum_tc = torch.zeros(layer.taps, layer.in_channels, dtype=torch.float64, device=device)
        self.gradient = torch.zeros((layer.out_channels,) * (2 if form.pairs else 1), device=device)
        self.features: dict[tuple[int, int], Tensor] = {}

    def add(self, module: nn.Module, x: Tensor, y: Tensor, positions: int | None, generator: torch.Generator) -> None:
        """Add the input patches at this number of drawn positions per image; None: all positions."""
        per_image = y[0].numel() // y.shape[-1 if isinstance(module, nn.Linear) else 1]
        for rows_ntc in patches(module, x, choose(len(x), per_image, positions, generator)):
            rows = rows_ntc.float()
            flat = rows.flatten(0, 1) if self.form == "kronecker" else rows.flatten(1)
            self.square.add(flat)
            if self.form == "kronecker":
                self.taps_tt += torch.einsum("nsc,ntc->st", rows, rows)
            self.sum_tc += rows.sum(0)
            self.count += len(rows)

    def keep(self, module: nn.Module, y: Tensor, part: tuple[int, int], start: int) -> None:
        """Keep the outputs of the first images for CKA; for a layer that runs twice, those of the first run.

        Args:
            module: The layer.
            y: Its output.
            part: The number of the batch and the place in it where `y` begins.
            start: How many images this process has seen before.
        """
        if start < EXAMPLES and part not in self.features:
            y = y.movedim(-1, 1) if isinstance(module, nn.Linear) else y
            self.features[part] = _pooled(y[: EXAMPLES - start])

    def listen(self, module: nn.Module, y: Tensor, once: Once) -> Tensor:
        """The output with a hook that sums the loss's gradient where it is new, as `once` says.

        The first watched layer starts the autograd graph.
        """
        if not torch.is_grad_enabled():  # this part has no backward pass, or the net itself disables gradients here
            return y
        if not y.requires_grad:
            y = y.detach().requires_grad_().clone()  # a clone, because a leaf must not be changed in place afterwards

        channels = y.dim() - 1 if isinstance(module, nn.Linear) else 1
        others = [axis for axis in range(y.dim()) if axis != channels]

        def measure(gradient: Tensor) -> None:
            with once() as new:
                if new and self.gradient.ndim == 2:
                    flat_op = gradient.float().movedim(channels, 0).flatten(1)
                    self.gradient += flat_op @ flat_op.T
                elif new:
                    self.gradient += torch.linalg.vector_norm(gradient, dim=others, dtype=torch.float32).square()

        y.register_hook(measure)
        return y

    @property
    def is_finite(self) -> bool:
        """Whether all inputs were finite."""
        return bool(self.sum_tc.isfinite().all()) and self.square.is_finite

    def merge(self, first: Collection[int]) -> None:
        """Add up the sums of all processes, in each of them; keep the outputs of the batches numbered in `first`."""
        self.square.values, self.taps_tt = all_sum(self.square.values), all_sum(self.taps_tt)
        self.sum_tc, self.gradient = all_sum(self.sum_tc), all_sum(self.gradient)
        self.count = int(all_sum(torch.tensor(self.count)))
        features = {part: kept for own in gather(self.features) for part, kept in own.items()}
        self.features = {part: features[part] for part in sorted(features) if part[0] in first}

    def finish(self, images: int, backward: int) -> LayerMoments:
        """The averages over so many images, of which so many had a backward pass."""
        mean = (self.sum_tc / self.count).T.flatten().float().cpu()
        gram = self._gram(min(images, EXAMPLES))
        return LayerMoments(self._second(), mean, self.count, (self.gradient / max(backward, 1)).cpu(), gram)

    def _gram(self, examples: int) -> Tensor | None:
        features = torch.cat(list(self.features.values()))[:EXAMPLES] if self.features else torch.empty(0, 1)
        return centered_gram(features) if len(features) == examples else None

    def _second(self) -> Triangle | Kronecker:
        channels, taps = self.layer.in_channels, self.layer.taps
        square = self.square.whole().div_(self.count)
        if self.form == "kronecker":
            # Both factors are marginals; the taps are scaled to trace T so that the product has the trace of the whole.
            taps_tt = ((self.taps_tt + self.taps_tt.T) / 2).cpu()
            return Kronecker(square / taps, taps_tt * (taps / taps_tt.trace().clamp_min(1e-30)))
        return Triangle.of(square, torch.arange(taps * channels).view(taps, channels).T.flatten())


def _pooled(y: Tensor) -> Tensor:
    """An output (images, channels, *size) averaged to 2 cells per axis, flat: coarse position matters for CKA."""
    pools = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
    return (pools[y.dim()](y.float(), _CELLS) if y.dim() in pools else y.float()).flatten(1).cpu()
