"""What a net's layers see and how much the loss feels them: second moments of input patches, from one pass over images.

Sums run in float32 (the error stays near 1e-6 relative, tests hold it to 1e-5); factorisations later use float64.
Where memory is short, the n x n moment of the largest layers gives way to its two factors, channels (x) taps: for 512
channels of 3x3 that is 1 MB instead of 85, and a ninth of the arithmetic. It is not free: six layers of a CIFAR
ResNet-56, fitted by low rank at half their parameters, had 10-34 % more output error than under the whole moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import length_hint
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import DataError, NumericsError
from ...core.linalg import Kronecker, Moment
from ...core.processes import agreed, count, gathered, share, total
from ...core.specs import Layer, Progress
from ...network.patches import choose, patches, watch
from .similarity import centred_gram

# Output positions drawn per image. Neighbours repeat each other: on 1,000 images of 1,024 positions, those six layers'
# error rose by less than 0.5 % against drawing 128, and sixteen times fewer patches were multiplied than there are.
POSITIONS = 64
# Images whose outputs are compared by CKA, and the cells to which each output is averaged along each axis.
_EXAMPLES, _CELLS = 256, 2
# Bytes that what a backward pass remembers may take, about: larger batches go through the net in parts. That is some
# four times the outputs of the layers: each one's own, its normalisation's, its activation's, and the gradients.
GRAPH, _REMEMBERED = 2 * 2**30, 4
_TEMPERATURE = 2.0  # a trained net is near-certain of its images: at 1 the labels it samples carry hardly any gradient
_UNUSABLE = frozenset({"KD104", "KD107", "KD111", "KD112"})
LONGEST = 4096  # outputs of a layer whose gradients may be correlated with one another: 64 MiB

Form = Literal["full", "kronecker"]


@dataclass(frozen=True)
class LayerMoments:
    """Statistics of one layer's input patches u (n = in-channels of a group x taps, channels first), on the CPU.

    `second` = E[u u^T], uncentred, float32, and `mean` = E[u]; groups are averaged. `count` is the number of patches
    averaged, 0 when made without data. `felt` = E over images of g g^T, float32, g the loss's gradient at a position of
    the layer's output, summed over positions: its diagonal (out), or all of it (out x out) where that was asked for;
    zeros where unknown or unfelt. `gram_ee` compares the outputs of up to 256 images (U-centred,
    of norm 1): the inner product of two layers' is their debiased CKA.
    """

    second: Moment
    mean: Tensor
    count: int
    felt: Tensor
    gram_ee: Tensor | None = None

    @property
    def sensitivity(self) -> float:
        """The mean squared gradient of a channel: what an error of the output costs, whichever channel it is in."""
        return float(self.felt_o.mean())

    @property
    def felt_o(self) -> Tensor:
        """The mean squared gradient at each channel of the output."""
        return self.felt.diagonal() if self.felt.ndim == 2 else self.felt


Moments = dict[str, LayerMoments]


def collect(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Iterable[Tensor],
    *,
    memory: int = 4 * 2**30,
    sensitivity: bool = True,
    correlate: bool = False,
    positions: int | None = POSITIONS,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Moments:
    """One pass over unlabelled batches of inputs. The model comes back as it was: device, modes, weights.

    `memory` bounds the bytes of all moments together: the largest fall to Kronecker form first, and those that still
    do not fit, like layers never reached, are missing from the result. `positions` are drawn per image (None: all).
    `felt` takes the backward pass as well, for the loss of labels sampled from the net's own softmax at
    temperature 2, in parts where a batch would take more than GRAPH bytes; it stays 0 unless the net returns (batch,
    classes). With `correlate` it is whole, of layers without groups and of at most LONGEST outputs, within the same
    bound. Weights are frozen meanwhile: no gradient of theirs is computed. Raises DataError KD405 without an image,
    NumericsError KD701 (weight) or KD702 (activations) with the name of what is not finite.

    Inside processes.sharing each process takes its share of the batches, and all have the same result: what is drawn
    for a batch depends on the seed and its number.
    """
    _require_finite_parameters(model)
    usable = [layer for layer in layers if layer.reason not in _UNUSABLE]
    related = {layer.name for layer in usable if correlate and layer.groups == 1 and layer.out_channels <= LONGEST}
    forms = plan_memory(usable, memory - sum(4 * layer.out_channels**2 for layer in usable if layer.name in related))
    known = {layer.name: layer for layer in layers if layer.name in forms}
    modules = {name: model.get_submodule(name) for name in known}
    most = at_once(layers) if sensitivity else None
    expected, generator = length_hint(batches, 0), torch.Generator()
    sizes: dict[int, int] = {}  # how many images each batch has
    with _frozen(model, device) as place:
        tallies: dict[str, _Tally] = {}  # in the order of execution, so that the first sick one is the culprit

        def see(name: str, module: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
            if name not in tallies:
                tallies[name] = _Tally(known[name], forms[name], place, name in related)
            tallies[name].add(module, x.detach(), y.detach(), positions, generator)
            if len(y) == len(part):  # else windows or tokens stand in the batch
                tallies[name].keep(module, y.detach(), (number, begin), sum(sizes.values()) + begin)
            return tallies[name].listen(module, y) if sensitivity else None

        with agreed(), watch(model, modules, see), torch.set_grad_enabled(sensitivity):
            for number, batch in share(batches):
                generator.manual_seed((seed + 7919 * number) % 2**32)
                begin = 0
                for part in batch.split(most or max(1, len(batch))):
                    output = model(part.to(place))
                    if sensitivity:
                        _feel(output, len(part), tallies, generator)
                    begin += len(part)
                sizes[number] = len(batch)
                if progress is not None:
                    progress("calibrate", number + 1, max(expected, number + 1))
            _require_finite(tallies)
        if count() > 1:
            sizes = {number: size for own in gathered(sizes) for number, size in own.items()}
            tallies = _of_all(tallies, known, forms, place, sizes, related)
        images = sum(sizes.values())
        if not images:
            raise DataError("KD405", "no calibration image was given; pass at least one")
        return {name: tallies[name].finish(images) for name in known if name in tallies}


def at_once(layers: Sequence[Layer]) -> int:
    """How many images go through these layers (survey.py) forth and back in about GRAPH bytes; at least one."""
    outputs = sum(4 * layer.out_positions * layer.out_channels for layer in layers)
    return max(1, GRAPH // max(1, _REMEMBERED * outputs))


def plan_memory(layers: Sequence[Layer], memory: int) -> dict[str, Form]:
    """The form of each layer's moment under a bound on their bytes; layers for which there is no room are left out."""
    forms: dict[str, Form] = {layer.name: "full" for layer in layers}
    largest = sorted(layers, key=lambda layer: -layer.patch)
    excess = sum(_bytes(layer, forms[layer.name]) for layer in layers) - memory
    for layer in largest:
        if excess > 0 and forms[layer.name] == "full" and layer.taps > 1:
            excess -= _bytes(layer, "full") - _bytes(layer, "kronecker")
            forms[layer.name] = "kronecker"
    for layer in sorted(layers, key=lambda layer: -_bytes(layer, forms[layer.name])):
        if excess > 0:
            excess -= _bytes(layer, forms.pop(layer.name))
    return forms


def _bytes(layer: Layer, form: Form) -> int:
    return 4 * (layer.patch**2 if form == "full" else layer.in_channels**2 + layer.taps**2)


class _Tally:
    """The running sums of one layer. Rows come tap-major and are put channels first only at the end."""

    def __init__(self, layer: Layer, form: Form, device: torch.device, related: bool) -> None:
        self.layer, self.form, self.count = layer, form, 0
        channels, taps = (layer.in_channels, layer.taps) if form == "kronecker" else (layer.patch, 0)
        self.square = torch.zeros(channels, channels, device=device)
        self.taps_tt = torch.zeros(taps, taps, device=device)
        self.sum_tc = torch.zeros(layer.taps, layer.in_channels, dtype=torch.float64, device=device)
        self.felt = torch.zeros((layer.out_channels,) * (2 if related else 1), device=device)
        self.features: dict[tuple[int, int], Tensor] = {}

    def add(self, module: nn.Module, x: Tensor, y: Tensor, positions: int | None, generator: torch.Generator) -> None:
        total = y[0].numel() // y.shape[-1 if isinstance(module, nn.Linear) else 1]
        for rows_ntc in patches(module, x, choose(len(x), total, positions, generator)):
            rows = rows_ntc.float()
            flat = rows.flatten(0, 1) if self.form == "kronecker" else rows.flatten(1)
            self.square.addmm_(flat.T, flat)
            if self.form == "kronecker":
                self.taps_tt += torch.einsum("nsc,ntc->st", rows, rows)
            self.sum_tc += rows.sum(0)
            self.count += len(rows)

    def keep(self, module: nn.Module, y: Tensor, part: tuple[int, int], start: int) -> None:
        """Remember the outputs of the first images for CKA; of a layer that runs twice, those of the first run.

        `part` is the number of the batch and where in it these begin, `start` how many images were seen here before.
        """
        if start < _EXAMPLES and part not in self.features:
            y = y.movedim(-1, 1) if isinstance(module, nn.Linear) else y
            self.features[part] = _pooled(y[: _EXAMPLES - start])

    def listen(self, module: nn.Module, y: Tensor) -> Tensor:
        """Let the loss's gradient at this output be measured. The first watched layer starts the graph."""
        if not torch.is_grad_enabled():  # the net itself forbids it here
            return y
        if not y.requires_grad:
            y = y.detach().requires_grad_().clone()  # a clone, for a leaf could not be changed in place after

        channels = -1 if isinstance(module, nn.Linear) else 1

        def measure(gradient: Tensor) -> None:
            flat_op = gradient.float().movedim(channels, 0).flatten(1)
            self.felt += flat_op @ flat_op.T if self.felt.ndim == 2 else flat_op.square().sum(1)

        y.register_hook(measure)
        return y

    def merge(self, first: Collection[int]) -> None:
        """The sums of all processes, in each of them; of the outputs, those of the `first` batches of the whole."""
        self.square, self.taps_tt = total(self.square), total(self.taps_tt)
        self.sum_tc, self.felt = total(self.sum_tc), total(self.felt)
        self.count = int(total(torch.tensor(self.count)))
        known = {part: kept for own in gathered(self.features) for part, kept in own.items()}
        self.features = {part: known[part] for part in sorted(known) if part[0] in first}

    def finish(self, images: int) -> LayerMoments:
        mean = (self.sum_tc / self.count).T.flatten().float().cpu()
        gram = self._gram(min(images, _EXAMPLES))
        return LayerMoments(self._second(), mean, self.count, (self.felt / images).cpu(), gram)

    def _gram(self, examples: int) -> Tensor | None:
        known = torch.cat(list(self.features.values()))[:_EXAMPLES] if self.features else torch.empty(0, 1)
        return centred_gram(known) if len(known) == examples else None

    def _second(self) -> Moment:
        channels, taps = self.layer.in_channels, self.layer.taps
        square = ((self.square + self.square.T) / (2 * self.count)).cpu()
        if self.form == "kronecker":
            # Both are marginals; the taps are scaled to trace T so that the product keeps the trace of the whole.
            taps_tt = ((self.taps_tt + self.taps_tt.T) / 2).cpu()
            return Kronecker(square / taps, taps_tt * (taps / taps_tt.trace().clamp_min(1e-30)))
        second_ctct = square.view(taps, channels, taps, channels).permute(1, 0, 3, 2)
        return second_ctct.reshape(taps * channels, -1)


def _of_all(
    tallies: dict[str, _Tally],
    layers: Mapping[str, Layer],
    forms: Mapping[str, Form],
    device: torch.device,
    sizes: Mapping[int, int],
    related: Collection[str],
) -> dict[str, _Tally]:
    """The tallies of all processes together, in each of them. One may have had no batch, and so no tally."""
    reached = {name for names in gathered(list(tallies)) for name in names}
    starts = accumulate((size for _, size in sorted(sizes.items())), initial=0)
    first = {number for number, start in zip(sorted(sizes), starts, strict=False) if start < _EXAMPLES}
    merged = {
        name: tallies.get(name) or _Tally(layers[name], forms[name], device, name in related)
        for name in layers
        if name in reached
    }
    for tally in merged.values():
        tally.merge(first)
    return merged


def _feel(output: Any, images: int, tallies: dict[str, _Tally], generator: torch.Generator) -> None:
    """The backward pass of one batch: cross-entropy against labels sampled from the net's own softened softmax."""
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != images or not output.requires_grad:
        return
    logits = output.float() / _TEMPERATURE
    if not logits.isfinite().all():
        _require_finite(tallies)
        raise NumericsError("KD702", "the model's output is not finite, though every calibrated layer's input is")
    labels = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator).squeeze(1)
    F.cross_entropy(logits, labels.to(logits.device), reduction="sum").backward()


def _pooled(y: Tensor) -> Tensor:
    """An output (images, channels, *size) averaged to 2 cells an axis: what is where matters, finer detail does not."""
    pools = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}
    return (pools[y.dim()](y.float(), _CELLS) if y.dim() in pools else y.float()).flatten(1).cpu()


@contextmanager
def _frozen(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model on `device` (None: where it is) with no parameter asking for gradients; both undone after."""
    parameters = list(model.parameters())
    asking = [p for p in parameters if p.requires_grad]
    home = parameters[0].device if parameters else torch.device("cpu")
    place = home if device is None else torch.device(device)
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        if place != home:
            model.to(place)
        yield place
    finally:
        if place != home:
            model.to(home)
        for parameter in asking:
            parameter.requires_grad_(True)


def _require_finite_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise NumericsError("KD701", f"{name}: the weight holds NaN or infinity")


def _require_finite(tallies: dict[str, _Tally]) -> None:
    """Name the first layer whose inputs were not finite."""
    for name, tally in tallies.items():
        if not tally.sum_tc.isfinite().all() or not tally.square.isfinite().all():
            raise NumericsError("KD702", f"{name}: its inputs hold NaN or infinity on the calibration images")
