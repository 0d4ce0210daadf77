"""torch-pruning: remove whole channels between two layers, by the weight norm of the group.

Channels that several layers write (a residual stream) are kept: without training, pruning them destroys the net.
"""

from __future__ import annotations

import copy

import torch_pruning as pruning
from torch import Tensor, nn

from ..tool_run import Candidate, ToolRun, count, example_of
from .largest_share import largest_share


def compress(net: nn.Module, images: Tensor, tool_run: ToolRun) -> Candidate:
    """Remove the same share of inner channels from every layer: the smallest share that fits the budget."""
    example = example_of(images)
    kept = largest_share(lambda share: count(_pruned(net, example, 1 - share, tool_run.layers)), tool_run.limit)
    return Candidate(_pruned(net, example, 1 - kept, tool_run.layers))


def _pruned(net: nn.Module, example: Tensor, ratio: float, layers: tuple[str, ...]) -> nn.Module:
    slim = copy.deepcopy(net)
    pruner = pruning.pruner.BasePruner(
        slim,
        example,
        importance=pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=_outer(slim, example, layers),
    )
    pruner.step()
    return slim


def _outer(net: nn.Module, example: Tensor, layers: tuple[str, ...]) -> list[nn.Module]:
    """The layers that keep all outputs: those not in the tool_run, and those whose channels other layers also write."""
    graph = pruning.DependencyGraph().build_dependency(net, example_inputs=example)
    inner = {name for name in layers if len(_writers(graph, net.get_submodule(name))) == 1}
    return [
        layer for name, layer in net.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear)) and name not in inner
    ]


def _writers(graph: pruning.DependencyGraph, layer: nn.Module) -> set[nn.Module]:
    group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, idxs=[0])
    return {
        dependency.target.module
        for dependency, _ in group
        if isinstance(dependency.target.module, (nn.Conv2d, nn.Linear))
        and graph.is_out_channel_pruning_fn(dependency.handler)
    }
