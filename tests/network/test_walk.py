"""The walk through two nets at once, and the least-squares problems it yields."""

import copy

import pytest
import torch
from support.tiny import Net, net_with_statistics
from torch import nn

from kdna_convert.network.blocks import Block, find_blocks
from kdna_convert.network.walk import kernel_of, layer_problem, match_mean, run, walk


@pytest.fixture
def nets() -> tuple[Net, Net, tuple[Block, ...], list[torch.Tensor]]:
    net = net_with_statistics()
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    images = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)) + 0.5
    batches = list(images.split(8))
    return net, copy.deepcopy(net), find_blocks(net, names, batches[0][:1]), batches


def test_a_block_gets_the_inputs_of_the_whole_net(nets) -> None:
    net, other, blocks, batches = nets
    with torch.no_grad():
        other.stem.weight.mul_(0.5)
        expected = other.blocks[0](other.stem(batches[0]))
    pair = next(pair for pair in walk(net, other, blocks, batches) if pair.block.name == "blocks.1")
    torch.testing.assert_close(pair.inputs[0], expected)
    torch.testing.assert_close(pair.target_outputs, run(net.blocks[1], pair.inputs0))


def test_a_change_made_on_the_way_is_seen_by_the_next_block(nets) -> None:
    net, other, blocks, batches = nets
    pairs = walk(net, other, blocks, batches)
    assert next(pair for pair in pairs if pair.block.name == "blocks.0")
    with torch.no_grad():
        other.blocks[0].bn2.bias.add_(1.0)
        expected = other.blocks[0](other.stem(batches[0]))
    pair = next(pairs)
    assert pair.block.name == "blocks.1"
    torch.testing.assert_close(pair.inputs[0], expected)
    assert not torch.allclose(pair.inputs[0], pair.inputs0[0])


def test_the_kernels_of_an_unchanged_net_solve_their_problems(nets) -> None:
    net, other, blocks, batches = nets
    solved = []
    for pair in walk(net, other, blocks, batches):
        for layer in pair.block.layers:
            solved.append(layer.name)
            problem = layer_problem(pair, layer, positions=10_000)
            torch.testing.assert_close(
                problem.cross_on, kernel_of(net.get_submodule(layer.name)) @ problem.moment_nn, atol=1e-4, rtol=1e-3
            )
    assert solved == ["stem", *(f"blocks.{block}.conv{half}" for block in (0, 1) for half in (1, 2)), "fc"]


def test_moments_are_those_of_the_unfolded_inputs(nets) -> None:
    net, other, blocks, batches = nets
    pair = next(iter(walk(net, other, blocks, batches)))
    problem = layer_problem(pair, pair.block.layers[0], positions=10_000)
    rows = torch.cat(
        [nn.functional.unfold(batch, 3, padding=1, stride=2).movedim(1, 2).flatten(0, 1) for batch in batches]
    )
    torch.testing.assert_close(problem.moment_nn, (rows.T @ rows / len(rows)).double(), atol=1e-5, rtol=1e-4)


def test_the_last_layer_of_a_branch_corrects_the_error_of_the_skip_path(nets) -> None:
    """With the skip path off by a constant, the target's mean moves by that constant through the normalization."""
    net, other, blocks, batches = nets
    with torch.no_grad():
        other.stem.weight.zero_()
    pair = next(pair for pair in walk(net, other, blocks, batches) if pair.block.name == "blocks.0")
    layer = pair.block.layers[1]
    plain, corrected = layer_problem(pair, layer, skip=False), layer_problem(pair, layer)
    scale = net.blocks[0].bn2.weight / (net.blocks[0].bn2.running_var + net.blocks[0].bn2.eps).sqrt()
    skip = torch.cat(pair.inputs0).mean((0, 2, 3))
    torch.testing.assert_close(corrected.mean_o - plain.mean_o, (skip / scale).double(), atol=1e-4, rtol=1e-3)


def test_matching_the_mean_restores_that_of_a_changed_layer(nets) -> None:
    net, other, blocks, batches = nets
    pair = next(pair for pair in walk(net, other, blocks, batches) if pair.block.name == "blocks.0")
    layer = pair.block.layers[0]
    problem = layer_problem(pair, layer, positions=10_000)
    with torch.no_grad():
        other.blocks[0].conv1.weight.mul_(0.7)

    def means() -> list[torch.Tensor]:
        both = ((net.blocks[0], pair.inputs0), (other.blocks[0], pair.inputs))
        return [torch.cat([block.bn1(block.conv1(x)) for x in inputs]).mean((0, 2, 3)) for block, inputs in both]

    assert not torch.allclose(*means(), atol=1e-2)
    match_mean(pair, layer, problem)
    torch.testing.assert_close(*means(), atol=1e-4, rtol=1e-4)


def test_matching_the_mean_of_an_unchanged_net_changes_nothing(nets) -> None:
    net, other, blocks, batches = nets
    for pair in walk(net, other, blocks, batches):
        for layer in pair.block.layers:
            match_mean(pair, layer, layer_problem(pair, layer, positions=10_000))
    torch.testing.assert_close(other(batches[0]), net(batches[0]), atol=1e-4, rtol=1e-4)
