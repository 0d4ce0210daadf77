"""Run the original and its conversion side by side on the same images, and fit the layers of one to the other.

for stop in walk(original, converted, layers, batches):      # in the order of execution
    problem = layer_problem(stop)    # inputs of the converted prefix, outputs of the original
    ...                              # change the layer of `converted`, in place
    match_mean(stop, problem)        # give its output the mean that it has in the original

All images wait at the layer (lockstep.py), so that the walk takes one forward pass of each net.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.linalg import dense
from ..core.standardize import without_mean
from ..core.triangle import SquareSum
from .batch_norm import norm_affine
from .derive import cached
from .inference import evaluating
from .lockstep import Pass, Passes, interleaves
from .patches import choose, patches
from .standardizing import is_standardizing, running_kernel
from .trace import RunLayer, held_bytes

# The least number of output positions drawn per image, and of patches per column of a layer's problem. With few images,
# more positions are drawn from each.
POSITIONS, PATCHES_PER_COLUMN = 64, 16
# The smallest scale of a channel, relative to the mean: the error of the skip path is divided by it.
_LEAST_SCALE = 1e-2
# The smallest variance of a layer's inputs, relative to their squared mean, that float32 sums can tell from zero.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Stop:
    """A layer, or a module of layers, where the passes of both nets wait. Valid until the walk goes on.

    Attributes:
        layer: The layer.
        original: The original net.
        converted: The converted net, whose layer may now be changed in place.
        passes: The pass through the original and that through the converted net, by batch.
    """

    layer: RunLayer
    original: nn.Module
    converted: nn.Module
    passes: Sequence[tuple[Pass, Pass]]

    @property
    def module0(self) -> nn.Module:
        """The layer in the original."""
        return self.original.get_submodule(self.layer.name)

    @property
    def module(self) -> nn.Module:
        """The layer in the converted net."""
        return self.converted.get_submodule(self.layer.name)

    @property
    def inputs(self) -> list[Tensor]:
        """The layer's inputs in the converted net, by batch."""
        return [own.kept[self.layer.name] for _, own in self.passes]

    @property
    def targets(self) -> list[Any]:
        """The layer's outputs in the original, by batch."""
        return [own.kept[self.layer.name] for own, _ in self.passes]

    def outputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The layer's outputs (batch, channels, positions) in the original and in the converted net, by batch."""
        linear = isinstance(self.module, nn.Linear)
        for x, target in zip(self.inputs, self.targets, strict=True):
            with evaluating(self.module):
                yield _flat(target, linear), _flat(self.module(x.clone()), linear)

    def skip_error(self, number: int) -> Tensor | None:
        """How far the skip path of batch `number` is from the original's, where the layer ends a branch."""
        terms0, terms = (own.terms for own in self.passes[number])
        return None if terms0 is None or terms is None else terms0[self.layer.skip] - terms[self.layer.skip]


@dataclass(frozen=True)
class LayerProblem:
    """The least-squares problem of a layer with the inputs of the converted prefix, float64, without biases.

    u are the layer's input patches in the converted net. y is the target: the original's output plus, at the end of a
    branch, the error of the skip path.

    Attributes:
        moment_nn: E[u u^T], centered if the layer's mean can be corrected afterwards.
        cross_on: E[y u^T], centered in the same way.
        mean_n: E[u], zero if not centered.
        mean_o: E[y], zero if not centered.
        variance_o: The variance of y.
        count: The number of patches.
    """

    moment_nn: Tensor
    cross_on: Tensor
    mean_n: Tensor
    mean_o: Tensor
    variance_o: Tensor
    count: int

    @property
    def determined(self) -> bool:
        """Whether the inputs vary, so that they determine a kernel at all."""
        return float(self.moment_nn.diagonal().mean()) > _LEAST_VARIANCE * float(self.mean_n.square().mean())


def walk(
    original: nn.Module,
    converted: nn.Module,
    layers: Sequence[RunLayer],
    batches: Sequence[Tensor],
    *,
    memory: int = 2**30,
    begin: int = 0,
) -> Iterator[Stop]:
    """Every layer in turn. A change of its converted module is in the inputs of the next.

    Args:
        original: The original net.
        converted: The converted net.
        layers: The layers, or other modules, in the order of `in_order`.
        batches: Images. Where a net holds much for an image, only the first ones are used; the others begin later.
        memory: Bytes of activations that the passes hold, about.
        begin: The number of the first layer.
    """
    rooms = _rooms(original, layers, batches[0][:1], memory)
    batches, cores = _fitting(original, layers, batches, rooms), torch.get_num_threads()
    slots, threads = threading.Semaphore(cores), max(1, cores // (2 * len(batches)))
    with ExitStack() as stack:
        passes0 = stack.enter_context(Passes(original, layers, slots, outputs=True))
        passes = stack.enter_context(Passes(converted, layers, slots, outputs=False))
        stack.callback(torch.set_num_threads, cores)  # the passes set the number for new threads
        waiting = list(batches)
        for number in range(begin, len(layers)):
            begun = sum(len(own.batch) for own in passes.passes)
            while waiting and (not begun or begun + len(waiting[0]) <= rooms[number]):
                begun += len(waiting[0])
                for net in (passes0, passes):
                    net.begin(waiting[0], number, threads)
                waiting.pop(0)
            with cached(converted.get_submodule(layers[max(number - 1, begin)].name)):
                passes0.advance(number, passes)
            pairs = zip(passes0.passes, passes.passes, strict=True)
            reached = [pair for pair in pairs if all(own.at == number for own in pair)]
            if reached:
                yield Stop(layers[number], original, converted, reached)


def in_order(layers: Sequence[RunLayer]) -> tuple[RunLayer, ...]:
    """The layers in the order in which a walk stops at them: one that ends a branch waits for the sum."""
    return tuple(sorted(layers, key=lambda layer: (layer.began, 0) if layer.sum is None else (layer.sum, 1)))


def _rooms(model: nn.Module, places: Sequence[RunLayer], image: Tensor, memory: int) -> list[int]:
    """How many images can wait at each place and at all places after it. Both nets hold about the same."""
    held = held_bytes(model, [place.name for place in places], image)
    rooms = [max(1, memory // max(1, 2 * held.get(place.name, 0))) for place in places]
    return list(accumulate(reversed(rooms), min))[::-1]


def _fitting(
    model: nn.Module, places: Sequence[RunLayer], batches: Sequence[Tensor], rooms: Sequence[int]
) -> list[Tensor]:
    """The batches, split so that one fits everywhere. A net whose passes cannot take turns gets a single batch."""
    least = min(rooms, default=1)
    fitting = [part for batch in batches for part in batch.split(least)]
    if len(fitting) == 1 or interleaves(model, places, fitting[0]):
        return fitting
    return [torch.cat(fitting[: -(-least // len(fitting[0]))])[:least]]


def drawn_positions(columns: int, images: int) -> int:
    """The output positions to draw per image for a problem with this number of columns."""
    return max(POSITIONS, -(-PATCHES_PER_COLUMN * columns // max(1, images)))


def layer_problem(stop: Stop, *, positions: int | None = None, skip: bool = True, seed: int = 0) -> LayerProblem:
    """The least-squares problem of a layer with one group.

    Args:
        stop: The layer in both nets.
        positions: Output positions drawn per image; None: `drawn_positions`.
        skip: Whether the target includes the error of the skip path, where the layer ends a branch.
        seed: Of the drawn positions.
    """
    module, linear = stop.module, isinstance(stop.module, nn.Linear)
    generator = torch.Generator().manual_seed(seed)
    bias_o = _bias(stop.module0).float()
    sums = _ProblemSums(module)
    positions = positions or drawn_positions(sums.channels * sums.taps, sum(len(x) for x in stop.inputs))
    for number, (x, target) in enumerate(zip(stop.inputs, stop.targets, strict=True)):
        y_bop = _flat(target, linear) - bias_o[:, None]
        error = stop.skip_error(number) if skip else None
        if error is not None:
            y_bop = y_bop + _flat(error, linear) / _scale(stop)[:, None]
        chosen = choose(len(x), y_bop.shape[2], positions, generator)
        y_ro = _picked(y_bop, chosen)
        place = 0
        for rows_ntc in patches(module, x, chosen):
            sums.add(rows_ntc.flatten(1), y_ro[place : place + len(rows_ntc)])
            place += len(rows_ntc)
    problem = sums.finish(absorbs(stop))
    return _less_mean(problem, module) if is_standardizing(module) else problem


def _less_mean(problem: LayerProblem, module: Any) -> LayerProblem:
    """The problem of a layer whose kernels have mean 0, so that it sees no mean of a patch."""
    cross_on = problem.cross_on - problem.cross_on.mean(1, keepdim=True)
    moment = without_mean(problem.moment_nn, module.weight.shape[1])
    return replace(problem, moment_nn=dense(moment), cross_on=cross_on, mean_n=problem.mean_n - problem.mean_n.mean())


def absorbs(stop: Stop) -> bool:
    """Whether the mean of the layer's output can be set without cost: by its normalization's statistics or its bias."""
    return stop.layer.norm is not None or stop.module._parameters.get("bias") is not None


def match_mean(stop: Stop, problem: LayerProblem) -> None:
    """Set the mean output of the converted layer to the original's, in place, by its normalization or its bias."""
    module = stop.module
    with torch.no_grad():
        mean_o = kernel_of(module) @ problem.mean_n.to(_bias(module).device)
        target_o = problem.mean_o.to(mean_o) + _bias(stop.module0)
        if stop.layer.norm is not None:
            move_mean(stop, stop.layer.norm, mean_o + _bias(module), target_o)
        elif module._parameters.get("bias") is not None:
            cast("nn.Linear", module).bias.copy_(target_o - mean_o)


def move_mean(stop: Stop, name: str, mean_o: Tensor, mean0_o: Tensor) -> None:
    """Set the running mean of a converted normalization, in place.

    Inputs with mean `mean_o` then have the same mean output as inputs with mean `mean0_o` have in the original. A
    channel's scale counts as at least a small share of the mean scale.
    """
    norm = cast("nn.BatchNorm2d", stop.converted.get_submodule(name))
    (scale, shift), (scale0, shift0) = norm_affine(norm), norm_affine(stop.original.get_submodule(name))
    own = cast("Tensor", norm.running_mean)
    beta = shift + scale * own.double()
    # scale (mean - running) + beta = scale0 mean0 + shift0
    running = mean_o - (scale0 * mean0_o + shift0 - beta) / _away_from_zero(scale)
    own.copy_(running)


def kernel_of(module: nn.Module) -> Tensor:
    """The kernel that a layer runs as a matrix (out, patch), float64."""
    return running_kernel(module).flatten(1)


def _bias(module: nn.Module) -> Tensor:
    """The layer's bias (out), float64, zeros where it has none."""
    layer = cast("nn.Linear", module)
    return layer.weight.new_zeros(len(layer.weight)).double() if layer.bias is None else layer.bias.detach().double()


class _ProblemSums:
    """Running sums over rows of patches and targets, float32. Rows are tap-major and are reordered at the end."""

    def __init__(self, module: Any) -> None:
        weight: Tensor = module.weight.detach()
        self.channels, self.taps = weight.shape[1], weight[0, 0].numel()
        patch, out = self.channels * self.taps, len(weight)
        self.moment = SquareSum(patch, weight.device)
        self.cross = weight.new_zeros(out, patch)
        self.first_n, self.first_o, self.square_o = (
            weight.new_zeros(size, dtype=torch.float64) for size in (patch, out, out)
        )
        self.count = 0

    def add(self, rows_rn: Tensor, y_ro: Tensor) -> None:
        self.moment.add(rows_rn)
        self.cross.addmm_(y_ro.T, rows_rn)
        self.first_n += rows_rn.sum(0)
        self.first_o += y_ro.sum(0)
        self.square_o += y_ro.square().sum(0)
        self.count += len(rows_rn)

    def finish(self, centered: bool) -> LayerProblem:
        order = torch.arange(self.channels * self.taps).view(self.taps, self.channels).T.flatten()
        moment = self.moment.whole()[order[:, None], order].double().div_(self.count)
        cross = self.cross.cpu()[:, order].double().div_(self.count)
        mean_n, mean_o = self.first_n.cpu()[order] / self.count, self.first_o.cpu() / self.count
        variance_o = self.square_o.cpu() / self.count - mean_o.square()
        if not centered:
            return LayerProblem(
                moment, cross, torch.zeros_like(mean_n), torch.zeros_like(mean_o), variance_o, self.count
            )
        moment.addr_(mean_n, mean_n, alpha=-1)
        cross -= mean_o[:, None] * mean_n
        return LayerProblem(moment, cross, mean_n, mean_o, variance_o, self.count)


def _flat(y: Tensor, linear: bool) -> Tensor:
    return (y.movedim(-1, 1) if linear else y).flatten(2) if y.ndim > 2 else y.unsqueeze(2)


def _picked(y_bop: Tensor, chosen_bp: Tensor | None) -> Tensor:
    """The chosen positions as rows (batch x positions, out), in the order of their patches."""
    y_bpo = y_bop.transpose(1, 2)
    if chosen_bp is not None:
        y_bpo = y_bpo.gather(1, chosen_bp.to(y_bpo.device)[:, :, None].expand(-1, -1, y_bpo.shape[2]))
    return y_bpo.flatten(0, 1)


def _scale(stop: Stop) -> Tensor:
    """The factor of the layer's output before the sum, away from zero."""
    if stop.layer.norm is None:
        return torch.ones_like(_bias(stop.module0)).float()
    return _away_from_zero(norm_affine(stop.original.get_submodule(stop.layer.norm))[0]).float()


def _away_from_zero(scale_o: Tensor) -> Tensor:
    least = _LEAST_SCALE * scale_o.abs().mean().clamp_min(1e-12)
    return torch.where(scale_o.abs() < least, torch.where(scale_o < 0, -least, least), scale_o)
