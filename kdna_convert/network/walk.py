"""Run the original and its conversion block by block on the same images, each with the inputs of its own prefix.

for pair in walk(original, converted, blocks, batches):      # in the order of execution
    for layer in pair.block.layers:
        problem = layer_problem(pair, layer)    # inputs of the converted prefix, outputs of the original
        ...                                     # change the layer of `converted`, in place
        match_mean(pair, layer, problem)        # give its output the mean that it has in the original

Inputs of blocks are kept in memory, so that a layer costs a few passes through its block, not through the net.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.linalg import dense
from ..core.standardize import without_mean
from .batch_norm import norm_affine
from .blocks import Block, BlockLayer, watching_sums
from .inference import device_of, evaluating
from .patches import choose, patches
from .standardizing import is_standardizing, running_kernel

# Output positions drawn per image, as in calibration.
POSITIONS = 64
# The smallest scale of a channel, relative to the mean: the error of the skip path is divided by it.
_LEAST_SCALE = 1e-2
# The smallest variance of a layer's inputs, relative to their squared mean, that float32 sums can tell from zero.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class BlockPair:
    """One block of both nets and its inputs, as batches of the same images.

    `target_outputs` is the output of the original's block, None where that is not one tensor.
    """

    block: Block
    original: nn.Module
    converted: nn.Module
    inputs0: list[Tensor]
    inputs: list[Tensor]
    target_outputs: list[Tensor] | None

    @property
    def original_block(self) -> nn.Module:
        return self.original.get_submodule(self.block.name)

    @property
    def converted_block(self) -> nn.Module:
        return self.converted.get_submodule(self.block.name)


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
    original: nn.Module, converted: nn.Module, blocks: Sequence[Block], batches: Sequence[Tensor]
) -> Iterator[BlockPair]:
    """Every block in turn. Changes to `converted` during the iteration affect the inputs of the next block."""
    last: BlockPair | None = None
    for block in blocks:
        if block.follows and last is not None and last.target_outputs is not None:
            inputs0, inputs = last.target_outputs, run(last.converted_block, last.inputs)
        else:
            inputs0, inputs = ([_reach(net, block.name, batch) for batch in batches] for net in (original, converted))
        target_outputs = run(original.get_submodule(block.name), inputs0) if block.whole else None
        last = BlockPair(block, original, converted, inputs0, inputs, target_outputs)
        yield last


def run(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """A block's outputs for batches of inputs, in eval mode and without gradients."""
    with evaluating(module):
        return [module(batch.clone()) for batch in inputs]  # a block may change its input in place


class _Reached(Exception):  # noqa: N818 - ends a forward pass early and is not an error
    pass


def _reach(model: nn.Module, name: str, batch: Tensor) -> Tensor:
    """The input of a module when `batch` is the input of the model."""
    if not name:
        return batch.to(device_of(model))
    inputs: list[Tensor] = []

    def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0].clone())
        raise _Reached

    handle = model.get_submodule(name).register_forward_pre_hook(stop)
    try:
        with evaluating(model):
            model(batch.to(device_of(model)))
    except _Reached:
        pass
    finally:
        handle.remove()
    return inputs[0]


def layer_problem(
    pair: BlockPair, layer: BlockLayer, *, positions: int = POSITIONS, skip: bool = True, seed: int = 0
) -> LayerProblem:
    """The least-squares problem of a layer with one group, from running both nets up to it.

    Args:
        pair: The block in both nets.
        layer: The layer.
        positions: Output positions drawn per image.
        skip: Whether the target includes the error of the skip path, where the layer ends a branch.
        seed: Of the drawn positions.
    """
    module0 = pair.original.get_submodule(layer.name)
    module = pair.converted.get_submodule(layer.name)
    generator = torch.Generator().manual_seed(seed)
    whole = skip and layer.sum is not None
    bias_o = _bias(module0).float()
    scale_o = _scale(pair.original, layer) if whole else None
    sums = _ProblemSums(module)
    with evaluating(pair.original_block), evaluating(pair.converted_block):
        for batch0, batch in zip(pair.inputs0, pair.inputs, strict=True):
            _, y_bop, skip0 = _look(pair.original_block, module0, layer, batch0, whole)
            x, _, skip1 = _look(pair.converted_block, module, layer, batch, whole)
            y_bop = y_bop - bias_o[:, None]
            if skip0 is not None and skip1 is not None and scale_o is not None:
                y_bop = y_bop + (skip0 - skip1) / scale_o[:, None]
            chosen = choose(len(x), y_bop.shape[2], positions, generator)
            y_ro = _picked(y_bop, chosen)
            place = 0
            for rows_ntc in patches(module, x, chosen):
                sums.add(rows_ntc.flatten(1), y_ro[place : place + len(rows_ntc)])
                place += len(rows_ntc)
    problem = sums.finish(absorbs(pair.converted, layer))
    return _less_mean(problem, module) if is_standardizing(module) else problem


def _less_mean(problem: LayerProblem, module: Any) -> LayerProblem:
    """The problem of a layer whose kernels have mean 0, so that it sees no mean of a patch."""
    cross_on = problem.cross_on - problem.cross_on.mean(1, keepdim=True)
    moment = without_mean(problem.moment_nn, module.weight.shape[1])
    return replace(problem, moment_nn=dense(moment), cross_on=cross_on, mean_n=problem.mean_n - problem.mean_n.mean())


def outputs(pair: BlockPair, layer: BlockLayer) -> tuple[list[Tensor], list[Tensor]]:
    """The layer's outputs (batch, channels, positions) in the original and in the converted net, batch by batch."""
    nets = (
        (pair.original, pair.original_block, pair.inputs0),
        (pair.converted, pair.converted_block, pair.inputs),
    )
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for place, (net, block, batches) in enumerate(nets):
        with evaluating(block):
            module = net.get_submodule(layer.name)
            both[place].extend(_look(block, module, layer, batch, whole=False)[1] for batch in batches)
    return both


def absorbs(model: nn.Module, layer: BlockLayer) -> bool:
    """Whether the mean of the layer's output can be set without cost: by its normalization's statistics or its bias."""
    return layer.norm is not None or model.get_submodule(layer.name)._parameters.get("bias") is not None


def match_mean(pair: BlockPair, layer: BlockLayer, problem: LayerProblem) -> None:
    """Set the mean output of the converted layer to the original's, in place, by its normalization or its bias."""
    module0, module = (net.get_submodule(layer.name) for net in (pair.original, pair.converted))
    with torch.no_grad():
        mean_o = kernel_of(module) @ problem.mean_n.to(_bias(module).device)
        target_o = problem.mean_o.to(mean_o) + _bias(module0)
        if layer.norm is not None:
            move_mean(pair, layer.norm, mean_o + _bias(module), target_o)
        elif module._parameters.get("bias") is not None:
            cast("nn.Linear", module).bias.copy_(target_o - mean_o)


def move_mean(pair: BlockPair, name: str, mean_o: Tensor, mean0_o: Tensor) -> None:
    """Set the running mean of a converted normalization, in place.

    Inputs with mean `mean_o` then have the same mean output as inputs with mean `mean0_o` have in the original. A
    channel's scale counts as at least a small share of the mean scale.
    """
    norm = cast("nn.BatchNorm2d", pair.converted.get_submodule(name))
    (scale, shift), (scale0, shift0) = norm_affine(norm), norm_affine(pair.original.get_submodule(name))
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
        self.moment = weight.new_zeros(patch, patch)
        self.cross = weight.new_zeros(out, patch)
        self.first_n, self.first_o, self.square_o = (
            weight.new_zeros(size, dtype=torch.float64) for size in (patch, out, out)
        )
        self.count = 0

    def add(self, rows_rn: Tensor, y_ro: Tensor) -> None:
        self.moment.addmm_(rows_rn.T, rows_rn)
        self.cross.addmm_(y_ro.T, rows_rn)
        self.first_n += rows_rn.sum(0)
        self.first_o += y_ro.sum(0)
        self.square_o += y_ro.square().sum(0)
        self.count += len(rows_rn)

    def finish(self, centered: bool) -> LayerProblem:
        order = torch.arange(self.channels * self.taps).view(self.taps, self.channels).T.flatten()
        moment = self.moment.double().cpu()[order][:, order] / self.count
        cross = self.cross.double().cpu()[:, order] / self.count
        mean_n, mean_o = self.first_n.cpu()[order] / self.count, self.first_o.cpu() / self.count
        variance_o = self.square_o.cpu() / self.count - mean_o.square()
        if not centered:
            return LayerProblem(
                moment, cross, torch.zeros_like(mean_n), torch.zeros_like(mean_o), variance_o, self.count
            )
        moment -= mean_n[:, None] * mean_n
        cross -= mean_o[:, None] * mean_n
        return LayerProblem(moment, cross, mean_n, mean_o, variance_o, self.count)


def _look(
    block: nn.Module, module: nn.Module, layer: BlockLayer, batch: Tensor, whole: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A layer's input, its output (batch, out, positions), and the other term of the sum that ends its branch.

    Without `whole` the pass ends at the layer, and there is no other term.
    """
    values: list[Tensor] = []
    terms: list[Tensor] = []

    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        values.extend((args[0].clone(), output.clone()))
        if not whole:
            raise _Reached

    def see(place: int, left: Tensor, right: Tensor) -> None:
        if place == layer.sum:
            terms.extend((left.clone(), right.clone()))

    handle = module.register_forward_hook(hook)
    try:
        with watching_sums(block, see):
            block(batch.clone())
    except _Reached:
        pass
    finally:
        handle.remove()
    linear = isinstance(module, nn.Linear)
    x, y = values
    other = terms[0 if layer.skip == 0 else 1] if terms else None
    return x, _flat(y, linear), None if other is None else _flat(other, linear)


def _flat(y: Tensor, linear: bool) -> Tensor:
    return (y.movedim(-1, 1) if linear else y).flatten(2) if y.ndim > 2 else y.unsqueeze(2)


def _picked(y_bop: Tensor, chosen_bp: Tensor | None) -> Tensor:
    """The chosen positions as rows (batch x positions, out), in the order of their patches."""
    y_bpo = y_bop.transpose(1, 2)
    if chosen_bp is not None:
        y_bpo = y_bpo.gather(1, chosen_bp.to(y_bpo.device)[:, :, None].expand(-1, -1, y_bpo.shape[2]))
    return y_bpo.flatten(0, 1)


def _scale(model: nn.Module, layer: BlockLayer) -> Tensor:
    """The factor of the layer's output before the sum, away from zero."""
    if layer.norm is None:
        return torch.ones_like(_bias(model.get_submodule(layer.name))).float()
    return _away_from_zero(norm_affine(model.get_submodule(layer.norm))[0]).float()


def _away_from_zero(scale_o: Tensor) -> Tensor:
    least = _LEAST_SCALE * scale_o.abs().mean().clamp_min(1e-12)
    return torch.where(scale_o.abs() < least, torch.where(scale_o < 0, -least, least), scale_o)
